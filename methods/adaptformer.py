"""AdaptFormer (Chen et al., NeurIPS 2022, arXiv:2205.13535): a bottleneck in parallel to the MLP.

    x -> x + MLP(LN(x)) + s (W_u ReLU(W_d x + b_d) + b_u),   W_d: [r, d], W_u: [d, r]

The bottleneck reads the residual stream before the block's LayerNorm (ShoufaChen/AdaptFormer models/custom_modules.py).
"""

import math
from typing import Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .adapters import bottleneck_params
from .anatomy import blocks_of
from .arguments import PositiveInt, Rate
from .base import Method, Paper, method
from .blocks import branches

Scale = float | Literal["learned"]
NormPosition = Literal["none", "in", "out"]


class ParallelBottleneck(nn.Module):
    """x -> s Up(drop(relu(Down(x)))), initially zero, optionally with a LayerNorm at its input or output."""

    def __init__(
        self, d: int, bottleneck: int, scale: Scale = 0.1, dropout: float = 0.1, layernorm: NormPosition = "none"
    ) -> None:
        super().__init__()
        self.norm_in, self.norm_out = (
            nn.LayerNorm(d) if layernorm == position else nn.Identity() for position in ("in", "out")
        )
        self.down, self.up = nn.Linear(d, bottleneck), nn.Linear(bottleneck, d)
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.ones(1)) if scale == "learned" else scale  # models/adapter.py: 1, not 0.1
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # [b, n, d]; h is unused
        return self.norm_out(self.up(self.dropout(self.down(self.norm_in(x)).relu())) * self.scale)


@method("adaptformer")
class AdaptFormer(Method):
    """Adds a ReLU bottleneck in parallel to the MLP, which reads the residual stream."""

    bottleneck: PositiveInt = 8
    scale: Scale = 0.1
    """A number, or "learned" for one trained factor per block."""
    dropout: Rate = 0.1
    layernorm: NormPosition = "none"
    """Position of a trained LayerNorm: input or output of the bottleneck; the paper's results have none."""
    title = "AdaptFormer"
    paper = Paper("NeurIPS", 2022, "2205.13535", "ShoufaChen/AdaptFormer")
    equation = r"x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)) + s\,W_u\,\mathrm{ReLU}(W_d x + b_d) + s\,b_u"
    targets = "parallel to the MLP"
    evidence = "authors' training"
    differs = (
        "The release's bottleneck is 64 wide by default, and a batch norm precedes the head. A width of 8 gives the "
        "0.16 M parameters of tables on VTAB-1k."
    )
    search = {"scale": (0.01, 0.1, 1.0)}
    backbones = ("vit", "swin")

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            attention, mlp = branches(ref.block)
            mlp.beside = ParallelBottleneck(ref.width, self.bottleneck, self.scale, self.dropout, self.layernorm)
            ref.replace(nn.Sequential(attention, mlp))

    def expected_params(self, vit: VisionTransformer) -> int:
        scale = self.scale == "learned"
        norm = 0 if self.layernorm == "none" else 2
        return bottleneck_params(vit, self.bottleneck) + sum(scale + norm * ref.width for ref in blocks_of(vit))
