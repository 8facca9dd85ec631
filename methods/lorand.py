"""LoRand (Yin et al., CVPR 2023): adapters whose maps are sums of products of three thin matrices.

    A(h) = gelu(h W_d + b_d) W_u + b_u,   W = sum_{i <= 4} P_i K_i Q_i,   K_i: [8, 8]

The adapters stand behind attention and MLP.  Source: the authors' later repository (DongshuoYin/CoLin
MMDetection/mmdet/models/backbones/swin_lorand.py:28-140), where both maps of an adapter have their own K_i.
"""

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .adapters import adapt_output
from .anatomy import blocks_of
from .arguments import PositiveInt
from .base import Method, Paper, method


class ThinProducts(nn.Module):
    """x -> x sum_i P_i K_i Q_i + b."""

    def __init__(self, inputs: int, outputs: int, branches: int, kernel: int) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.empty(branches, inputs, kernel))
        self.k = nn.Parameter(torch.empty(branches, kernel, kernel))
        self.q = nn.Parameter(torch.empty(branches, kernel, outputs))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-(inputs**-0.5), inputs**-0.5))
        for matrix in (*self.p, *self.k, *self.q):
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        middle = torch.einsum("...i,bik,bkl->...bl", x, self.p, self.k)
        return middle.flatten(-2) @ self.q.flatten(0, 1) + self.bias


@method("lorand")
class LoRand(Method):
    """Adds adapters to the outputs of both branches whose maps are sums of products of thin matrices."""

    factor: PositiveInt = 2
    """Width of the backbone divided by that of the adapter."""
    branches: PositiveInt = 4
    kernel: PositiveInt = 8
    title = "LoRand"
    paper = Paper("CVPR", 2023, None, "DongshuoYin/CoLin")
    equation = r"x \leftarrow x + h + A(h),\ A(h) = W_u\,\mathrm{GELU}(W_d h),\ W = \sum_i P_i K_i Q_i"
    targets = "after attention, after the MLP"
    evidence = "authors' module"
    differs = "The release is for Swin Transformers in dense prediction, with a detection or segmentation head."
    search = {"branches": (2, 4, 8)}  # ours
    starts_as_identity = False  # no matrix is initially zero
    backbones = ("vit", "swin")

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            inner = max(ref.width // self.factor, 1)
            for branch in (1, 2):
                down = ThinProducts(ref.width, inner, self.branches, self.kernel)
                up = ThinProducts(inner, ref.width, self.branches, self.kernel)
                adapt_output(ref.block, branch, nn.Sequential(down, nn.GELU(), up))

    def expected_params(self, vit: VisionTransformer) -> int:
        widths = [(ref.width, max(ref.width // self.factor, 1)) for ref in blocks_of(vit)]
        thin = (2 * self.branches * self.kernel * (d + inner + self.kernel) for d, inner in widths)
        return 2 * (sum(thin) + sum(d + inner for d, inner in widths))
