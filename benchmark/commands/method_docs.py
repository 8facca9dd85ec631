"""Descriptions of all registered methods: the text of `list methods`, and the page docs/methods.md."""

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..reporting.method_evidence import MethodEvidence, load
from ..reporting.text_table import text_table

COUNTED_ON = "vit_base_patch16_224"
"""The backbone for which parameters are counted."""
ROUNDING = 1e-3
"""Percent (ours): smaller changes of fp32 features come from another order of summation."""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a text table with one line per method."""
    shown = [
        {
            "name": row["name"],
            "from": f"{row['venue']} {row['year']}" if row["year"] else "",
            "params": _count(row["params_vit_b16"]),
            "merges": _yes(row["mergeable"]),
            "start": _start(row),
            "evidence": proof_of(**row).short + (f"; needs {row['needs']}" if row["needs"] else ""),
            "description": row["description"],
        }
        for row in rows
    ]
    widths = [None] * (len(shown[0]) - 1) + [max(30, shutil.get_terminal_size().columns - 76)]
    lines = _table(shown, "simple", widths if sys.stdout.isatty() else None)
    return (
        f"{lines}\n\n{len(rows)} methods. params: trainable on {COUNTED_ON} without head, at the defaults.\n"
        "start: relative change of toy_vit's features at initialisation; `same` is exactly the pretrained model.\n"
        'needs peft: pip install "vtab-peft[peft]"; `?`: not measured, as a package is missing.'
    )


def page(rows: Sequence[dict[str, Any]]) -> str:
    """Return the page docs/methods.md."""
    summary = [
        {
            "method": f"[`{row['name']}`](#{row['name']})",
            "from": f"{row['venue']} {row['year']}" if row["year"] else "",
            "parameters": _count(row["params_vit_b16"]),
            "merges": _yes(row["mergeable"]),
            "start": _start(row),
            "evidence": proof_of(**row).short,
            "differs from the release": _differs(row),
        }
        for row in rows
    ]
    lines = [_HEAD.format(count=len(rows), backbone=COUNTED_ON)]
    lines.append(_table(summary, "pipe"))
    for row in rows:
        lines += ["", *_section(row)]
    return "\n".join([*lines, "", _DECLINED])


def sections(rows: Sequence[dict[str, Any]]) -> str:
    """Return what the page says about some methods, with their parameters and evidence."""
    parts = []
    for row in rows:
        count, evidence = _count(row["params_vit_b16"]), proof_of(**row).short
        facts = [f"- Parameters: {count} on {COUNTED_ON}, without head", f"- Merges: {_yes(row['mergeable'])}"]
        parts.append("\n".join([*_section(row), *facts, f"- Start: {_start(row)}", f"- Evidence: {evidence}"]))
    return "\n\n".join(parts)


_HEAD = """\
# Methods

<!-- Made by `make docs` from the registry; edit the method's file instead. -->

{count} methods.

`--methods "lora(rank=4) + bitfit"` trains several methods together, injected in this order. They
must train different tensors and change different modules, and gradients must reach all of them;
other combinations are refused before anything is trained. Methods that choose tensors with the
training images (`gps`, `spt_lora`) cannot be combined.

- *Parameters*: trainable parameters on `{backbone}` without the head, at the defaults. A test
  compares them with the model.
- *Merges*: the trained parameters can be merged into the plain timm model, without extra cost at
  inference.
- *Start*: relative change of the features of `toy_vit` at initialisation. `same` is the pretrained
  model, bit for bit; `rounding` differs only by the order of summation. `other width`: the features
  are those of a network of its own.
- *Evidence*: how the implementation was verified, from the strongest grade to the weakest.
  [methods/evidence.csv](../methods/evidence.csv) names the proof of each.
  - *Authors' training*: the loss of each training step equals that of the authors' code, with their
    parameter groups, optimiser and schedule ([trajectories.md](trajectories.md)).
  - *Authors' module*: outputs and gradients equal numbers computed with the authors' code
    ([tests/golden/methods](../tests/golden/methods)). Parameter groups and schedules were not
    compared.
  - *Reference implementation*: the same, but the code is that of others, in brackets. What needs
    peft is computed by Hugging Face peft itself; install it with `pip install "vtab-peft[peft]"`.
  - *Closed form*: the definition leaves no choice.
  - *Paper only*: a test implements the paper's equations a second time. There are no numbers of the
    authors' code, even if such code exists (that of VQT does not train its queries).
- *Differs from the release*: known differences between the defaults here and the authors' training
  code; the link leads to the details. *None known*: none was found by comparing the code, numbers
  or training.

In the equations x and h are token features and W is a pretrained weight [out, in]; LN and MLP are
the model's own.
"""


_DECLINED = """\
## Declined

- **Side-tuning** (ECCV 2020; VTAB comparisons use the form of KMnP/vpt): a pretrained AlexNet in
  parallel to the backbone, whose 9,216 features are mapped to 768 and added with a trained weight,
  9,547,585 parameters. It needs a second pretrained network, for which we have no verified weights,
  and it does not adapt the ViT.
- **LST** (NeurIPS 2022): its code supports text and vision-language models only. For a ViT, the
  side network's initial weights, attention heads and connected layers are not specified, nor the
  origin of the 2.38 M parameters reported on VTAB. An implementation would be our own method under
  its name.
- **The searches of GLoRA and NOAH**: they train a supernet for 500 epochs and search it by
  evolution. That is another protocol, not another method; `glora` is one fixed configuration, and
  NOAH's parts are `lora_fused`, `adapter_noah` and `vpt_deep`.
- **Other tuners of peft**, which `hf` runs by their names there. BEFT trains a part of what
  `bitfit` does; LayerNorm tuning and GLoRA are `layernorm` and `glora`. Lily averages its router
  over all tokens of a batch, so that predictions depend on the other images of the batch. OSF is
  made for tasks in succession, and trains half of the singular vectors. FRoD needs weights of one
  width. AdaMSS needs scikit-learn.
- **EVA, LoRA-GA, CorDA and KaSA** of peft need calls by its users, on data or gradients; `hf`
  refuses these options.
"""


def _section(row: dict[str, Any]) -> list[str]:
    first, rest = row["description"], row["details"]
    facts = [("Targets", row["targets"]), ("Paper", _paper(row))]
    if row["code"]:
        facts.append(("Official code", f"[{row['code']}](https://github.com/{row['code']})"))
    facts.append(("Defaults", _arguments(row["defaults"])))
    if row["differs"]:
        facts.append(("Differs from the release", row["differs"]))
    if sources := proof_of(**row).sources:
        facts.append(("Verified with", ", ".join(map(_commit_link, sources))))
    if row["needs"]:
        facts.append(("Needs", f'{row["needs"]}: `pip install "vtab-peft[{row["needs"]}]"`'))
    if row["search"]:
        facts.append(("Tuned over", "; ".join(f"`{name}` in {_values(grid)}" for name, grid in row["search"].items())))
    if row["lr"]:
        facts.append(("Learning rate", f"{row['lr']:g} instead of the recipe's"))
    lines = [f"## {row['name']}", "", _wrapped(f"**{row['title']}.** {first}"), ""]
    if row["equation"]:
        lines += [f"$${row['equation']}$$", ""]
    if rest:
        lines += [_wrapped(rest), ""]
    return lines + [_wrapped(f"- {name}: {value}") for name, value in facts if value]


def _wrapped(text: str) -> str:
    """Return paragraphs and list items wrapped at 100 columns; indented lines, such as formulas, stay."""
    wrap = partial(textwrap.wrap, width=100, break_long_words=False, break_on_hyphens=False)
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        part if part.startswith(" ") else "\n".join(wrap(part, subsequent_indent="  " if part.startswith("- ") else ""))
        for part in paragraphs
    )


def _differs(row: dict[str, Any]) -> str:
    """Return a link to the text, or that no difference or no release is known."""
    if row["differs"]:
        return f"[yes](#{row['name']})"
    return "none known" if row["code"] else "no release"


def proof_of(name: str, evidence: str, **_: Any) -> MethodEvidence:
    """Return the proof of a method's grade; plug-ins have none."""
    return load().get(name, MethodEvidence(evidence, (), (), ()))


def _commit_link(source: str) -> str:
    return f"[{source}](https://github.com/{source.replace('@', '/tree/')})"


def _paper(row: dict[str, Any]) -> str:
    if not row["year"]:
        return ""
    where = f"{row['venue']} {row['year']}"
    return f"{where}, [arXiv:{row['arxiv']}](https://arxiv.org/abs/{row['arxiv']})" if row["arxiv"] else where


def _arguments(values: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value!r}`" for name, value in values.items())


def _values(grid: Sequence[Any]) -> str:
    return ", ".join(json.dumps(value) for value in grid)


def _start(row: dict[str, Any]) -> str:
    if row["starts_as_identity"]:
        return "same"
    if row["change_at_start"] is None:
        return "?" if row["params_vit_b16"] is None else "other width"
    percent = 100 * row["change_at_start"]
    if percent < ROUNDING:
        return "rounding"
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def _count(params: int | None) -> str:
    return "?" if params is None else f"{params:,}"


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _table(rows: Sequence[dict[str, Any]], style: str, widths: Sequence[int | None] | None = None) -> str:
    align = "".join("r" if heading.startswith("param") or heading == "start" else "l" for heading in rows[0])
    return text_table([*rows[0]], [[*row.values()] for row in rows], align, style, widths)
