"""The update of DeLoRA (Bini et al., ICLR 2025, arXiv:2503.18225) as its authors start it."""

import math

import torch
from torch import Tensor, nn

from .updates import Transform


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
