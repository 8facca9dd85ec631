"""AdaptFormer (Chen et al., NeurIPS 2022, arXiv:2205.13535): a bottleneck in parallel with the MLP.

It reads the residual stream before the LayerNorm (ShoufaChen/AdaptFormer models/custom_modules.py).
"""

import math
from dataclasses import dataclass

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, at_least_one, register
from .blocks import branches


class ParallelBottleneck(nn.Module):
    """x -> s Up(drop(relu(Down(x)))), zero at the start."""

    def __init__(self, d: int, bottleneck: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(d, bottleneck), nn.Linear(bottleneck, d)
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # [b, n, d], of which h is not read
        return self.up(self.dropout(self.down(x).relu())) * self.scale


@register("adaptformer")
@dataclass(frozen=True)
class AdaptFormer(Method):
    """A ReLU bottleneck in parallel with the MLP, on the residual stream."""

    bottleneck: int = 8
    scale: float = 0.1
    dropout: float = 0.1
    title = "AdaptFormer"
    paper = Paper("NeurIPS", 2022, "2205.13535", "ShoufaChen/AdaptFormer")
    equation = r"x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)) + s\,W_u\,\mathrm{ReLU}(W_d x + b_d) + s\,b_u"
    places = "beside the MLP"
    evidence = "golden"
    search = {"scale": (0.01, 0.1, 1.0)}

    def __post_init__(self) -> None:
        at_least_one(bottleneck=self.bottleneck)

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            attention, mlp = branches(block)
            mlp.beside = ParallelBottleneck(vit.embed_dim, self.bottleneck, self.scale, self.dropout)
            vit.blocks[i] = nn.Sequential(attention, mlp)

    def expected_params(self, vit: VisionTransformer) -> int:
        d, r = vit.embed_dim, self.bottleneck
        return len(vit.blocks) * (2 * d * r + r + d)
