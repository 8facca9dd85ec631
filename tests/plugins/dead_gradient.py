"""An incorrect plug-in: both factors of an adapter are initially zero, so neither ever gets a gradient."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import Method, method
from vtab_peft.methods.blocks import Residual


class Bottleneck(nn.Module):
    def __init__(self, d: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.zeros(d, rank))
        self.up = nn.Parameter(torch.zeros(rank, d))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        return x @ self.down @ self.up


@method("dead_gradient")
class DeadGradient(Method):
    """Adds a linear bottleneck after each block."""

    rank: int = 4
    title = "Dead gradient"
    equation = r"x \leftarrow x + U D x"
    targets = "after each block"
    evidence = "closed form"

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            vit.blocks[i] = nn.Sequential(block, Residual(Bottleneck(vit.embed_dim, self.rank)))

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * 2 * vit.embed_dim * self.rank
