"""Measured facts of methods at their defaults: parameters on ViT-B/16, and how far features move at the start.

Measuring all methods takes minutes on a small machine, so `methods/measured.csv` holds the numbers.  A row counts only
for the version and the defaults that it names.  Plug-ins and changed methods are measured when they are listed.

    python -m vtab_peft.benchmark.commands.method_facts      measures new and changed methods and adds them
"""

import contextlib
import csv
import importlib.util
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ...datasets import toy
from ...datasets.atomic_io import atomic_write
from ...methods import METHODS, Method
from ...methods.base import method_name
from ..canonical import fingerprint
from ..engine.injection import inject, wants_examples
from ..recipes import RECIPES
from .method_docs import COUNTED_ON

TABLE = Path(__file__).resolve().parents[2] / "methods" / "measured.csv"
HEAD = ("method", "identity", "params_vit_b16", "change_at_start")


@dataclass(frozen=True)
class MethodFacts:
    """Measured facts of one method at its defaults."""

    params_vit_b16: int | None
    """Trainable parameters on `COUNTED_ON` without the head; None if counting needs a missing package."""
    change_at_start: float | None
    """|f' - f| / |f| on 32 toy images, for features f of toy_vit before and f' after `inject`.

    None as above, or if the method gives the features another width.
    """


class Measurer:
    """Returns the facts of methods, from the file where it has them."""

    def __init__(self, known: dict[str, tuple[str, MethodFacts]] | None = None) -> None:
        self._known = load() if known is None else known

    def facts(self, method: Method) -> MethodFacts:
        """Return the stored facts of this method, or measure it."""
        identity, stored = self._known.get(method_name(type(method)), ("", MethodFacts(None, None)))
        if identity == identity_of(method):
            return stored
        is_missing = method.needs is not None and importlib.util.find_spec(method.needs) is None
        return MethodFacts(self._params(method), None if is_missing else self._change(method))

    def _params(self, method: Method) -> int | None:
        with contextlib.suppress(ValueError, RuntimeError):  # a missing package, or real weights needed
            return method.expected_params(self._vit_b16)
        return None

    @torch.no_grad()
    def _change(self, method: Method) -> float | None:
        toy_vit, examples, before = self._toy
        still = replace(RECIPES["toy"], drop_path=0.0)
        with torch.enable_grad():
            injected = inject(toy_vit, method, still, 0, examples if wants_examples(method) else None)
        after = injected.vit.eval()(examples[0])
        if after.shape != before.shape:
            return None
        return float(f"{(after - before).norm() / before.norm():.3g}")

    @cached_property
    def _vit_b16(self) -> VisionTransformer:
        with torch.device("meta"):
            return cast(VisionTransformer, timm.create_model(COUNTED_ON, num_classes=0))

    @cached_property
    def _toy(self) -> tuple[VisionTransformer, tuple[Tensor, Tensor], Tensor]:
        """Return toy_vit, 32 normalised images with labels, and their features."""
        from ..engine import backbone
        from ..engine.transforms import Normalize, resize

        toy_vit = backbone.load("toy_vit")
        labels = np.arange(32) % 10
        pictures = torch.from_numpy(toy.draw("texture", labels, np.random.default_rng(0))).permute(0, 3, 1, 2)
        images = Normalize(toy_vit.mean, toy_vit.std)(resize(pictures, toy_vit.image_size, "bicubic"))
        with torch.no_grad():
            features = toy_vit.vit(images)
        return cast(VisionTransformer, toy_vit.vit), (images, torch.from_numpy(labels)), features


def identity_of(method: Method) -> str:
    """Return a hash of what the facts depend on: version and defaults."""
    return fingerprint({"version": method.version, "args": method.args()}, 8)


def load() -> dict[str, tuple[str, MethodFacts]]:
    """Read the file: registered name -> identity and facts."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["method"]: (
            row["identity"],
            MethodFacts(
                int(row["params_vit_b16"]) if row["params_vit_b16"] else None,
                float(row["change_at_start"]) if row["change_at_start"] else None,
            ),
        )
        for row in rows
    }


def write() -> None:
    """Measure the methods that the file does not have as they are now, and rewrite it; delete a row to repeat it."""
    measurer = Measurer()
    lines = [",".join(HEAD)]
    for name, cls in sorted(METHODS.items()):
        facts = ["" if fact is None else f"{fact:g}" if isinstance(fact, float) else str(fact)
                 for fact in astuple(measurer.facts(cls()))]  # fmt: skip
        lines.append(",".join([name, identity_of(cls()), *facts]))
    with atomic_write(TABLE) as file:
        file.write("\n".join([*lines, ""]).encode())


if __name__ == "__main__":
    write()
