"""DTL, disentangled transfer learning (Fu et al., AAAI 2024, arXiv:2312.07856): a low-rank side network.

    R -> R + B_l A_l x,   x -> Block_l(x) + R * sigmoid(beta R),   A_l: [r, d], B_l: [d, r]

R accumulates a low-rank map of each block's input.  After each block of the last half, a swish of R is added to the
residual stream (heekhero/DTL models/vision_transformer.py:44-69,415-450).  Gradients do not pass the blocks of the
first half.  The backbone keeps its own pooling; `pooling="patches"` averages the patch tokens and then normalises, as
the release does.
"""

from typing import Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Method, Paper, later, method
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
    pooling: Literal["model", "patches"] = later(default="model")
    """patches: the head reads the mean of the patch tokens, normalised, as in the release."""
    title = "DTL"
    paper = Paper("AAAI", 2024, "2312.07856", "heekhero/DTL")
    equation = r"R \leftarrow R + B_l A_l x, \quad x \leftarrow \mathrm{Block}_l(x) + R \odot \sigma(\beta R)"
    targets = "after each block of the last half"
    evidence = "authors' training"
    differs = "The head reads the mean of the patch tokens there; `pooling='patches'` does so."

    def fusion(self, vit: VisionTransformer) -> nn.Module:
        return nn.Identity()

    def inject(self, vit: VisionTransformer) -> None:
        vit.blocks = nn.Sequential(SideNetwork(vit.blocks, vit.embed_dim, self.rank, self.beta, self.fusion(vit)))
        if self.pooling == "patches" and not isinstance(vit.norm, nn.Identity):
            vit.global_pool, vit.norm, vit.fc_norm = "avg", nn.Identity(), vit.norm

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * 2 * vit.embed_dim * self.rank


@method("dtl_plus")
class DTLPlus(DTL):
    """DTL with a depthwise convolution over the patches of its output; all blocks share the convolution.

    The VTAB scripts of the release set a kernel of 3 on 6 tasks, 4 on 4 and 5 on 9.
    """

    kernel: Literal[3, 5] = later(default=3)
    """Side of the kernel in patches."""
    title = "DTL+"
    equation = (
        r"R \leftarrow R + B_l A_l x, \quad x \leftarrow \mathrm{Block}_l(x) + \mathrm{DWConv}(R \odot \sigma(\beta R))"
    )

    def fusion(self, vit: VisionTransformer) -> nn.Module:
        d, k = vit.embed_dim, self.kernel
        convolution = nn.Conv2d(d, d, k, padding=k // 2, groups=d, bias=False)
        return OnPatchGrid(convolution, vit, keep_prefix=True)  # as in the release

    def expected_params(self, vit: VisionTransformer) -> int:
        return super().expected_params(vit) + self.kernel**2 * vit.embed_dim
