"""AdaptFormer (Chen et al., NeurIPS 2022, arXiv:2205.13535): a bottleneck in parallel with the MLP.

It reads the residual stream before the block's LayerNorm (ShoufaChen/AdaptFormer models/custom_modules.py).
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .adapters import bottleneck_params
from .anatomy import blocks_of
from .base import Method, Paper, register, require_positive
from .blocks import branches

Scale = float | Literal["learned"]
OwnNorm = Literal["none", "in", "out"]


class ParallelBottleneck(nn.Module):
    """x -> s Up(drop(relu(Down(x)))), zero at the start; a LayerNorm of its own stands before or behind it, or none."""

    def __init__(
        self, d: int, bottleneck: int, scale: Scale = 0.1, dropout: float = 0.1, layernorm: OwnNorm = "none"
    ) -> None:
        super().__init__()
        self.norm_in, self.norm_out = (
            nn.LayerNorm(d) if layernorm == place else nn.Identity() for place in ("in", "out")
        )
        self.down, self.up = nn.Linear(d, bottleneck), nn.Linear(bottleneck, d)
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.ones(1)) if scale == "learned" else scale  # models/adapter.py: from 1, not 0.1
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # [b, n, d], of which h is not read
        return self.norm_out(self.up(self.dropout(self.down(self.norm_in(x)).relu())) * self.scale)


@register("adaptformer")
@dataclass(frozen=True)
class AdaptFormer(Method):
    """A ReLU bottleneck in parallel with the MLP, on the residual stream."""

    bottleneck: int = 8
    scale: Scale = 0.1
    """A number, or "learned": one trained factor per block."""
    dropout: float = 0.1
    layernorm: OwnNorm = "none"
    """A trained LayerNorm on what the bottleneck reads ("in") or gives ("out"); the paper's results are without."""
    title = "AdaptFormer"
    paper = Paper("NeurIPS", 2022, "2205.13535", "ShoufaChen/AdaptFormer")
    equation = r"x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)) + s\,W_u\,\mathrm{ReLU}(W_d x + b_d) + s\,b_u"
    places = "beside the MLP"
    evidence = "golden"
    search = {"scale": (0.01, 0.1, 1.0)}
    backbones = ("vit", "swin")

    def __post_init__(self) -> None:
        require_positive(bottleneck=self.bottleneck)
        if isinstance(self.scale, str) and self.scale != "learned":
            raise ValueError(f"scale must be a number or 'learned', not {self.scale!r}")
        if self.layernorm not in get_args(OwnNorm):
            raise ValueError(f"layernorm must be one of {', '.join(get_args(OwnNorm))}, not {self.layernorm!r}")

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            attention, mlp = branches(place.block)
            mlp.beside = ParallelBottleneck(place.width, self.bottleneck, self.scale, self.dropout, self.layernorm)
            place.replace(nn.Sequential(attention, mlp))

    def expected_params(self, vit: VisionTransformer) -> int:
        own = self.scale == "learned"
        norm = 0 if self.layernorm == "none" else 2
        return bottleneck_params(vit, self.bottleneck) + sum(own + norm * place.width for place in blocks_of(vit))
