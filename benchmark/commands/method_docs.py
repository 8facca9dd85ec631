"""What every method is, from the registry: rows for `list methods`, and the page docs/methods.md."""

import contextlib
import importlib.util
import inspect
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import timm
import torch
from tabulate import tabulate
from timm.models.vision_transformer import VisionTransformer

from ...datasets import toy
from ...methods import METHODS, Method
from ..engine import backbone
from ..engine.injection import inject, wants_examples
from ..engine.transforms import resize_and_normalize
from ..recipes import RECIPES

COUNTED_ON = "vit_base_patch16_224"
"""The backbone whose parameter counts are listed."""

ROUNDING = 1e-3
"""Percent, ours: fp32 features that moved less did so because sums were taken in another order."""


def methods() -> list[dict[str, Any]]:
    """One row per registered method, at its defaults, sorted by name."""
    with torch.device("meta"):
        vit = cast(VisionTransformer, timm.create_model(COUNTED_ON, num_classes=0))
    change = _start_change()
    rows = []
    for name, cls in sorted(METHODS.items()):
        if cls.needs is None or importlib.util.find_spec(cls.needs):
            rows.append(_row(name, cls(), cls().expected_params(vit), change(cls())))
        else:
            rows.append(_row(name, cls(), _closed_form(cls(), vit), None))
    return rows


def _closed_form(method: Method, vit: VisionTransformer) -> int | None:
    """None where only the package that is missing knows the number."""
    with contextlib.suppress(ValueError):
        return method.expected_params(vit)
    return None


def _start_change() -> Callable[[Method], float]:
    """Measures |f' - f| / |f| over the features of 32 toy images, f before and f' after the method is put in."""
    toy_vit = backbone.load("toy_vit")
    labels = np.arange(32) % 10
    pictures = torch.from_numpy(toy.draw("texture", labels, np.random.default_rng(0))).permute(0, 3, 1, 2)
    images = resize_and_normalize(pictures, toy_vit.image_size, "bicubic", toy_vit.mean, toy_vit.std)
    examples = images, torch.from_numpy(labels)
    still = replace(RECIPES["toy"], drop_path=0.0)
    with torch.no_grad():
        before = toy_vit.vit(images)

    def change(method: Method) -> float:
        injected = inject(toy_vit.vit, method, still, 0, examples if wants_examples(method) else None)
        with torch.no_grad():
            after = injected.vit.eval()(images)
        return float(f"{(after - before).norm() / before.norm():.3g}")

    return change


def _row(name: str, method: Method, params: int | None, change: float | None) -> dict[str, Any]:
    cls, paper = type(method), method.paper
    return {
        "name": name,
        "title": cls.title,
        "description": _docstring(cls)[0],
        "venue": paper and paper.venue,
        "year": paper and paper.year,
        "arxiv": paper and paper.arxiv,
        "code": paper and paper.code,
        "equation": cls.equation,
        "targets": cls.targets,
        "backbones": list(cls.backbones),
        "defaults": method.args(),
        "search": {field: list(values) for field, values in cls.search.items()},
        "lr": cls.lr,
        "params_vit_b16": params,
        "mergeable": cls.mergeable(),
        "starts_as_identity": cls.starts_as_identity,
        "change_at_start": change,
        "evidence": cls.evidence,
        "needs": cls.needs,
        "version": cls.version,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a method, for a terminal."""
    shown = [
        {
            "name": row["name"],
            "from": f"{row['venue']} {row['year']}" if row["year"] else "",
            "params": _count(row["params_vit_b16"]),
            "merges": _yes(row["mergeable"]),
            "start": _start(row),
            "evidence": f"peft (needs {row['needs']})" if row["needs"] else row["evidence"],
            "what it is": row["description"],
        }
        for row in rows
    ]
    widths = [None] * (len(shown[0]) - 1) + [max(30, shutil.get_terminal_size().columns - 76)]
    lines = tabulate(
        shown,
        headers="keys",
        tablefmt="simple",
        disable_numparse=True,
        colalign=_align(shown),
        maxcolwidths=widths if sys.stdout.isatty() else None,
    )
    return (
        f"{lines}\n\n{len(rows)} methods. params: trainable on {COUNTED_ON} without head, at the defaults.\n"
        "start: how far the features of toy_vit move when the method is put in; `same` is the pretrained model.\n"
        'needs peft: pip install "vtab-peft[peft]"; `?` is known with it.'
    )


def page(rows: Sequence[dict[str, Any]]) -> str:
    """docs/methods.md."""
    summary = [
        {
            "method": f"[`{row['name']}`](#{row['name']})",
            "from": f"{row['venue']} {row['year']}" if row["year"] else "",
            "parameters": _count(row["params_vit_b16"]),
            "merges": _yes(row["mergeable"]),
            "start": _start(row),
            "evidence": row["evidence"],
        }
        for row in rows
    ]
    lines = [_HEAD.format(count=len(rows), backbone=COUNTED_ON)]
    lines.append(tabulate(summary, headers="keys", tablefmt="pipe", disable_numparse=True, colalign=_align(summary)))
    for row in rows:
        lines += ["", *_section(row)]
    return "\n".join([*lines, "", _DECLINED])


_HEAD = """\
# Methods

<!-- Made by `make docs` from the registry; edit the method's file instead. -->

{count} methods. Parameters are the trainable ones on `{backbone}` without the head, at the defaults,
from a closed form that a test compares with the model. *Merges*: what was learned folds into the plain timm
model, which then computes the same without extra cost. *Start*: how far the features of `toy_vit` move when
the method is put in, relative to their norm; `same` is the pretrained model, bit for bit, and `rounding` the same
but for the order in which sums are taken. *Evidence*: `golden` means that outputs and gradients equal numbers
computed with official code ([tests/golden/methods](../tests/golden/methods)); `closed form` that the definition
leaves no choice; `peft` that Hugging Face peft computes it, which `pip install "vtab-peft[peft]"` adds; `paper only`
that it is compared with the paper's equations, written once more in a test: no numbers of official code are there, even
where such code is (that of VQT does not train its queries).

In the equations x and h are token features and W is a pretrained weight [out, in]; LN and MLP are the model's own.
"""


_DECLINED = """\
## Declined

- **Side-tuning** (ECCV 2020; the form compared on VTAB is that of KMnP/vpt): a pretrained AlexNet beside the backbone,
  its 9,216 features mapped to 768 and mixed in with a learned weight, 9,547,585 parameters. It needs a second
  pretrained network, which is not among the checked weights, and it adapts nothing in the ViT.
- **LST** (NeurIPS 2022): its code covers text and vision-language models only. For a ViT the side network's initial
  weights, its attention heads and the layers it taps are not given, nor what makes the 2.38 M parameters reported on
  VTAB. Whatever stood here would be our own method under its name.
- **GLoRA's and NOAH's searches**: they train a supernet for 500 epochs and search it by evolution. That is another
  protocol, not another method; `glora` is one fixed configuration, and NOAH's parts are `lora_fused`, `adapter_noah`
  and `vpt_deep`.
"""


def _section(row: dict[str, Any]) -> list[str]:
    first, rest = _docstring(METHODS[row["name"]])
    facts = [("Targets", row["targets"]), ("Paper", _paper(row))]
    if row["code"]:
        facts.append(("Official code", f"[{row['code']}](https://github.com/{row['code']})"))
    facts.append(("Defaults", _arguments(row["defaults"])))
    if row["needs"]:
        facts.append(("Needs", f'{row["needs"]}: `pip install "vtab-peft[{row["needs"]}]"`'))
    if row["search"]:
        facts.append(("Tuned over", "; ".join(f"`{name}` in {_values(grid)}" for name, grid in row["search"].items())))
    if row["lr"]:
        facts.append(("Learning rate", f"{row['lr']:g} instead of the recipe's"))
    lines = [f"## {row['name']}", "", f"**{row['title']}.** {first}", "", f"$${row['equation']}$$", ""]
    if rest:
        lines += [rest, ""]
    return lines + [f"- {name}: {value}" for name, value in facts if value]


def _docstring(cls: type[Method]) -> tuple[str, str]:
    """First paragraph, and the rest."""
    first, _, rest = (inspect.getdoc(cls) or "").partition("\n\n")
    return " ".join(first.split()), rest


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
        return "?"
    percent = 100 * row["change_at_start"]
    if percent < ROUNDING:
        return "rounding"
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def _count(params: int | None) -> str:
    return "?" if params is None else f"{params:,}"


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _align(rows: Sequence[dict[str, Any]]) -> list[str]:
    return ["right" if heading.startswith("param") or heading == "start" else "left" for heading in rows[0]]
