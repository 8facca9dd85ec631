"""DTL, disentangled transfer learning (Fu et al., AAAI 2024, arXiv:2312.07856): a low-rank side residual.

R gathers a low-rank map of what enters each block; from the middle of the depth on, the running R goes through a
swish into the residual stream (heekhero/DTL models/vision_transformer.py:44-69,415-450).  No gradient has to pass
the blocks before the first that receives.  The release averages the patch tokens and normalises after that; here the
backbone keeps its own pooling.
"""

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register, require_positive
from .blocks import OnPatchGrid
from .lora import LowRank


class SideNetwork(nn.Module):
    """Runs the blocks; behind the last half of them x -> x + fusion(R sigmoid(beta R))."""

    def __init__(self, blocks: nn.Sequential, d: int, rank: int, beta: float, fusion: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks
        self.sides = nn.ModuleList(LowRank(torch.empty(d, d), rank, 1.0) for _ in blocks)
        self.beta, self.fusion = beta, fusion

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        residual = torch.zeros_like(x)
        for i, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            residual = residual + side(x)
            x = block(x)
            if i >= len(self.sides) // 2:
                x = x + self.fusion(residual * (self.beta * residual).sigmoid())
        return x


@register("dtl")
@dataclass(frozen=True)
class DTL(Method):
    """A low-rank side network that reads every block and writes behind the last half of them."""

    rank: int = 2
    beta: float = 100.0
    """Sharpness of the swish; all VTAB scripts of the release use 100."""
    title = "DTL"
    paper = Paper("AAAI", 2024, "2312.07856", "heekhero/DTL")
    equation = r"R \leftarrow R + B_l A_l x, \quad x \leftarrow \mathrm{Block}_l(x) + R \odot \sigma(\beta R)"
    places = "after each block of the last half"
    evidence = "golden"

    def __post_init__(self) -> None:
        require_positive(rank=self.rank)

    def fusion(self, vit: VisionTransformer) -> nn.Module:
        return nn.Identity()

    def inject(self, vit: VisionTransformer) -> None:
        vit.blocks = nn.Sequential(SideNetwork(vit.blocks, vit.embed_dim, self.rank, self.beta, self.fusion(vit)))

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * 2 * vit.embed_dim * self.rank


@register("dtl_plus")
@dataclass(frozen=True)
class DTLPlus(DTL):
    """DTL with one depthwise 3x3 convolution over the patches of what it writes, shared by the blocks."""

    title = "DTL+"
    equation = (
        r"R \leftarrow R + B_l A_l x, \quad x \leftarrow \mathrm{Block}_l(x) + \mathrm{DWConv}(R \odot \sigma(\beta R))"
    )

    def fusion(self, vit: VisionTransformer) -> nn.Module:
        convolution = nn.Conv2d(vit.embed_dim, vit.embed_dim, 3, padding=1, groups=vit.embed_dim, bias=False)
        return OnPatchGrid(convolution, vit, keep_prefix=True)  # as in the release

    def expected_params(self, vit: VisionTransformer) -> int:
        return super().expected_params(vit) + 9 * vit.embed_dim
