"""A low-rank addition to the second linear map of the MLP that does everything right."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import Method, register
from vtab_peft.methods.updates import Update, merge_linears, site_shapes, update_linears


class Narrow(Update):
    """x -> up(down(x)), zero at the start."""

    def __init__(self, weight: Tensor, rank: int) -> None:  # [outputs, inputs]
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / math.sqrt(rank))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return F.linear(F.linear(x, self.down), self.up)

    def delta(self) -> Tensor:
        return self.up @ self.down


@register("good")
@dataclass(frozen=True)
class Good(Method):
    """A low-rank addition to fc2."""

    rank: int = 4
    title = "Good"
    paper = None
    equation = r"W' = W + U D"
    places = "fc2"
    evidence = "closed form"
    search = {"rank": (2, 4)}
    backbones = ("vit", "swin")

    def inject(self, vit: VisionTransformer) -> None:
        update_linears(vit, "fc2", lambda weight, _: Narrow(weight, self.rank))

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.rank * (inputs + outputs) for inputs, outputs in site_shapes(vit, "fc2"))
