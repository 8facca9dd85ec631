"""A correct plug-in: a low-rank update of the second linear map of the MLP."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vtab_peft.methods import LinearUpdateMethod, method
from vtab_peft.methods.updates import Update


class Narrow(Update):
    """x -> up(down(x)), initially zero."""

    def __init__(self, weight: Tensor, rank: int) -> None:  # [outputs, inputs]
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / math.sqrt(rank))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return F.linear(F.linear(x, self.down), self.up)

    def delta(self) -> Tensor:
        return self.up @ self.down


@method("good")
class Good(LinearUpdateMethod):
    """Adds a low-rank product to fc2."""

    rank: int = 4
    title = "Good"
    equation = r"W' = W + U D"
    targets = "fc2"
    evidence = "closed form"
    search = {"rank": (2, 4)}
    backbones = ("vit", "swin")
    sites = "fc2"

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update:
        return Narrow(weight, self.rank)

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs)
