"""RLRR, residual low-rank rescaling (Dong et al., CVPR 2024, arXiv:2403.19067).

    W' = W * (1 + row column),   b' = b + shift,   row: [out, 1], column: [1, in]

Rank one, as released (zstarN70/RLRR models/networks.py:37-74).  The patch embedding and all LayerNorms are scaled and
shifted as in SSF (lines 138-175).
"""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Paper, method
from .ssf import NORMS, merge_scales, scale_and_shift
from .updates import ALL_SITES, LinearUpdateMethod, Transform, lacks_bias


class Rescaling(Transform):
    """W, b -> W * (1 + row column), b + shift."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:  # [outputs, inputs] and [outputs]
        super().__init__()
        outputs, inputs = weight.shape
        # As released, |row| < sqrt 6 and |column| < sqrt(6 / inputs), so that every weight changes at initialisation
        self.row = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(outputs, 1)))
        self.column = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(1, inputs)))
        self.shift = nn.Parameter(torch.zeros(outputs))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight * (1 + self.row * self.column), None if bias is None else bias + self.shift


@method("rlrr")
class RLRR(LinearUpdateMethod):
    """Rescales each entry of every weight matrix by one plus a rank-one matrix, and shifts every bias."""

    title = "RLRR"
    paper = Paper("CVPR", 2024, "2403.19067", "zstarN70/RLRR")
    equation = r"W' = W \odot (1 + s_{row} s_{col}^T), \quad b' = b + \beta"
    targets = "patch embedding, LayerNorms, all linears"
    evidence = "authors' training"
    differs = "Scale and shift of the patch embedding are decayed there."
    starts_as_identity = False
    sites = ALL_SITES

    def validate_backbone(self, vit: VisionTransformer) -> None:
        if lacks_bias(vit, self.sites):
            raise ValueError("it has a linear map without bias, and every bias is shifted")

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Transform:
        return Rescaling(weight, bias)

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        scale_and_shift(vit, NORMS)

    def merge(self, vit: VisionTransformer) -> None:
        super().merge(vit)
        merge_scales(vit, NORMS)

    def update_params(self, inputs: int, outputs: int) -> int:
        return inputs + 2 * outputs

    def expected_params(self, vit: VisionTransformer) -> int:
        norms = 2 * len(vit.blocks) + 1
        return super().expected_params(vit) + 2 * vit.embed_dim * (1 + norms)
