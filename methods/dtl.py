"""DTL, disentangled transfer learning (Fu et al., AAAI 2024, arXiv:2312.07856): a low-rank side network.

    R -> R + B_l A_l x,   x -> Block_l(x) + R * sigmoid(beta R),   A_l: [r, d], B_l: [d, r]

R accumulates a low-rank map of each block's input.  After each block of the last half, a swish of R is added to the
residual stream (heekhero/DTL models/vision_transformer.py:44-69,415-450).  Gradients do not pass the blocks of the
first half.  The release averages patch tokens and then normalises; here the backbone keeps its own pooling.
"""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Method, Paper, method
from .blocks import OnPatchGrid
from .lora import LowRank


class SideNetwork(nn.Module):
    """Runs the blocks, and x -> x + fusion(R sigmoid(beta R)) after each block of the last half."""

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


@method("dtl")
class DTL(Method):
    """Trains a low-rank side network that reads every block and writes after each block of the last half."""

    rank: PositiveInt = 2
    beta: float = 100.0
    """Sharpness of the swish; all VTAB scripts of the release set 100."""
    title = "DTL"
    paper = Paper("AAAI", 2024, "2312.07856", "heekhero/DTL")
    equation = r"R \leftarrow R + B_l A_l x, \quad x \leftarrow \mathrm{Block}_l(x) + R \odot \sigma(\beta R)"
    targets = "after each block of the last half"
    evidence = "golden"

    def fusion(self, vit: VisionTransformer) -> nn.Module:
        return nn.Identity()

    def inject(self, vit: VisionTransformer) -> None:
        vit.blocks = nn.Sequential(SideNetwork(vit.blocks, vit.embed_dim, self.rank, self.beta, self.fusion(vit)))

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * 2 * vit.embed_dim * self.rank


@method("dtl_plus")
class DTLPlus(DTL):
    """DTL with a depthwise 3x3 convolution over the patches of its output; all blocks share the convolution."""

    title = "DTL+"
    equation = (
        r"R \leftarrow R + B_l A_l x, \quad x \leftarrow \mathrm{Block}_l(x) + \mathrm{DWConv}(R \odot \sigma(\beta R))"
    )

    def fusion(self, vit: VisionTransformer) -> nn.Module:
        convolution = nn.Conv2d(vit.embed_dim, vit.embed_dim, 3, padding=1, groups=vit.embed_dim, bias=False)
        return OnPatchGrid(convolution, vit, keep_prefix=True)  # as in the release

    def expected_params(self, vit: VisionTransformer) -> int:
        return super().expected_params(vit) + 9 * vit.embed_dim
