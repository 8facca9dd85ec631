"""DeLoRA (Bini et al., ICLR 2025, arXiv:2503.18225): a bounded low-rank update, by peft or as its authors start it."""

import math
from typing import Any, Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Paper, later, method
from .hf_low_rank import leave_out_buffers
from .hf_peft import FromPeft
from .updates import Transform, merge_linears, update_linears


class BoundedUpdate(Transform):
    """W -> W + lambda (f(A, B) - f(A_0, B_0)) diag(|W_:j|), f the mean of outer products of normalised vectors.

    A_0 and B_0 are the initial factors (ExplainableML/DeLoRA peft/src/peft/tuners/delora.py:226-280).
    """

    a0: Tensor
    b0: Tensor

    def __init__(self, weight: Tensor, rank: int, strength: float) -> None:  # weight: [outputs, inputs]
        super().__init__()
        outputs, inputs = weight.shape
        self.a, self.b = nn.Parameter(torch.empty(rank, inputs)), nn.Parameter(torch.empty(outputs, rank))
        self.strength = nn.Parameter(torch.full((1,), strength))
        for factor, name in ((self.a, "a0"), (self.b, "b0")):
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))
            self.register_buffer(name, factor.detach().clone())

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        change = _normalised_product(self.a, self.b) - _normalised_product(self.a0, self.b0)
        return weight + self.strength * change * weight.norm(dim=0), bias


def _normalised_product(a: Tensor, b: Tensor) -> Tensor:  # [rank, inputs], [outputs, rank] -> [outputs, inputs]
    return (b / b.norm(dim=0)) @ (a / a.norm(dim=1, keepdim=True)) / len(a)


@method("delora")
class DeLoRA(FromPeft):
    """Adds a low-rank product of normalised vectors, whose length one trained number per weight bounds."""

    rank: PositiveInt = 8
    strength: float = 15.0
    """Initial value of λ, which is trained."""
    start: Literal["zeros", "released"] = later(default="zeros")
    """zeros: initially B = 0, as in peft.  released: both factors start at random, and the same term with their initial
    values is subtracted, as in the authors' code; adapters then hold the initial factors too."""
    title = "DeLoRA"
    paper = Paper("ICLR", 2025, "2503.18225", "ExplainableML/DeLoRA")
    equation = (
        r"W' = W + \tfrac{\lambda}{r} \sum_i \frac{b_i a_i^\top}{\lVert b_i \rVert \lVert a_i \rVert}"
        r"\, \mathrm{diag}(\lVert W_{:j} \rVert)"
    )
    evidence = "authors' module"
    differs = (
        "The release starts both factors at random and subtracts the same term with their initial values, as with "
        "`start='released'`; this is peft's form, in which B starts at zero."
    )
    search = {"rank": (4, 8, 16), "strength": (5.0, 15.0)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "delora", {"r": self.rank, "delora_lambda": self.strength}

    def make_update(self, weight: Tensor, bias: Tensor | None) -> BoundedUpdate:
        return BoundedUpdate(weight, self.rank, self.strength)

    def inject(self, vit: VisionTransformer) -> None:
        if self.start == "released":
            update_linears(vit, self.sites, self.make_update)
        else:
            super().inject(vit)
            leave_out_buffers(vit)

    def merge(self, vit: VisionTransformer) -> None:
        if self.start == "released":
            merge_linears(vit)
        else:
            super().merge(vit)

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs) + 1
