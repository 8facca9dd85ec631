"""AdaptFormer (Chen et al., NeurIPS 2022, arXiv:2205.13535): a bottleneck in parallel with the MLP.

    x -> x + MLP(LN(x)) + s Up(drop(relu(Down(x))))

The adapter reads the residual stream before the LayerNorm (ShoufaChen/AdaptFormer models/custom_modules.py).
"""

import math
from dataclasses import dataclass
from typing import cast

from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .base import Method, register


class ParallelAdapterBlock(nn.Module):
    """A timm block whose MLP branch gets a parallel bottleneck."""

    def __init__(self, block: Block, d: int, bottleneck: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.block, self.scale = block, scale
        self.down, self.up = nn.Linear(d, bottleneck), nn.Linear(bottleneck, d)
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)  # the model starts unchanged

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        block = self.block
        x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
        adapted = self.up(self.dropout(self.down(x).relu())) * self.scale
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x)))) + adapted


@register("adaptformer")
@dataclass(frozen=True)
class AdaptFormer(Method):
    bottleneck: int = 8
    scale: float = 0.1
    dropout: float = 0.1
    title = "AdaptFormer"
    paper = "arXiv:2205.13535"
    search = {"scale": (0.01, 0.1, 1.0)}

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise ValueError(f"bottleneck must be at least 1, not {self.bottleneck}")

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            adapted = ParallelAdapterBlock(cast(Block, block), vit.embed_dim, self.bottleneck, self.scale, self.dropout)
            vit.blocks[i] = adapted

    def expected_params(self, vit: VisionTransformer) -> int:
        d, r = vit.embed_dim, self.bottleneck
        return len(vit.blocks) * (2 * d * r + r + d)
