"""Hydra, multi-head low-rank adaptation (Kim et al., Neural Networks 2024, arXiv:2309.06922): two branches at a map.

    o = W z + b,   y = o + s (U_p D_p z + U_s D_s o)

The parallel branch p reads the input, the sequential branch s the frozen output; both have biases
(extremebird/Hydra vtab1k/hydra.py).  The released merge fails for attention; here both branches merge.
"""

from collections.abc import Iterator
from typing import cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of, mlp_hidden
from .arguments import PositiveInt, Rate
from .base import Method, Paper, method


class Branch(nn.Module):
    """x -> Up(drop(Down(x))), initially zero."""

    def __init__(self, inputs: int, outputs: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.down, self.up, self.dropout = nn.Linear(inputs, rank), nn.Linear(rank, outputs), nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return self.up(self.dropout(self.down(x)))

    def weight_and_bias(self) -> tuple[Tensor, Tensor]:
        """Return the equivalent linear map, [outputs, inputs] and [outputs]."""
        return self.up.weight @ self.down.weight, self.up.weight @ self.down.bias + self.up.bias


class TwoBranches(nn.Module):
    """z -> o + scale (parallel(z) + sequential(o)), o = linear(z)."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, scale
        self.parallel = Branch(linear.in_features, linear.out_features, rank, dropout)
        self.sequential = Branch(linear.out_features, linear.out_features, rank, dropout)

    def forward(self, z: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        o = self.linear(z)
        return o + self.scale * (self.parallel(z) + self.sequential(o))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the equivalent plain linear map."""
        (w_p, b_p), (w_s, b_s) = self.parallel.weight_and_bias(), self.sequential.weight_and_bias()
        weight, bias = self.linear.weight, self.linear.bias
        before = torch.zeros_like(b_p) if bias is None else bias
        self.linear.bias = nn.Parameter(before + self.scale * (b_p + w_s @ before + b_s), requires_grad=False)
        weight += self.scale * (w_p + w_s @ weight)
        return self.linear


def _adapted(vit: VisionTransformer) -> Iterator[tuple[nn.Module, str]]:
    """Yield parent and name of the last linear map of each branch of each block."""
    for ref in blocks_of(vit):
        yield ref.block.get_submodule("attn"), "proj"
        yield ref.block.get_submodule("mlp"), "fc2"


@method("hydra")
class Hydra(Method):
    """Adds a parallel and a sequential low-rank branch to the last linear map of attention and MLP."""

    rank: PositiveInt = 2
    scale: float = 1.0
    """Ours, within the released range: the scripts set 0.1 to 4.5 per task."""
    dropout: Rate = 0.0
    """Between down- and up-projection; the scripts set 0 to 0.2 per task."""
    title = "Hydra"
    paper = Paper("Neural Networks", 2024, "2309.06922", "extremebird/Hydra")
    equation = r"o = Wz + b,\quad y = o + s\,(U_p D_p z + U_s D_s o)"
    targets = "o, fc2"
    evidence = "authors' training"
    differs = "The release sets scale, dropout and learning rate for each task."
    search = {"scale": (0.1, 0.5, 1.0, 4.0)}  # ours, over the released range
    backbones = ("vit", "swin")

    def inject(self, vit: VisionTransformer) -> None:
        for parent, name in _adapted(vit):
            linear = cast(nn.Linear, getattr(parent, name))
            setattr(parent, name, TwoBranches(linear, self.rank, self.scale, self.dropout))

    def merge(self, vit: VisionTransformer) -> None:
        for parent, name in _adapted(vit):
            setattr(parent, name, cast(TwoBranches, getattr(parent, name)).merged())

    def expected_params(self, vit: VisionTransformer) -> int:
        r = self.rank
        shapes = [(ref.width, inputs) for ref in blocks_of(vit) for inputs in (ref.width, mlp_hidden(ref.block))]
        return sum(r * (inputs + 3 * d) + 2 * (r + d) for d, inputs in shapes)
