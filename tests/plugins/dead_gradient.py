"""An adapter behind each block whose two factors both start at zero, so that neither ever gets a gradient."""

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import Method, register
from vtab_peft.methods.blocks import Residual


class Bottleneck(nn.Module):
    def __init__(self, d: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.zeros(d, rank))
        self.up = nn.Parameter(torch.zeros(rank, d))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        return x @ self.down @ self.up


@register("dead_gradient")
@dataclass(frozen=True)
class DeadGradient(Method):
    """A linear bottleneck behind each block."""

    rank: int = 4
    title = "Dead gradient"
    paper = None
    equation = r"x \leftarrow x + U D x"
    places = "behind each block"
    evidence = "closed form"

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            vit.blocks[i] = nn.Sequential(block, Residual(Bottleneck(vit.embed_dim, self.rank)))

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * 2 * vit.embed_dim * self.rank
