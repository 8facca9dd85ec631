"""RLRR, residual low-rank rescaling (Dong et al., CVPR 2024, arXiv:2403.19067): W' = W * (1 + row column).

Rank one, as released (zstarN70/RLRR models/networks.py:37-74), with a shift of every bias; the patch embedding and
all LayerNorms are scaled and shifted as in SSF (138-175).
"""

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register
from .ssf import NORMS, fold, scale_and_shift
from .updates import SITES, Transform, merge_linears, site_shapes, transform_linears

_SITES = ",".join(SITES)


class Rescaling(Transform):
    """W, b -> W * (1 + row column), b + shift."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:  # [outputs, inputs] and [outputs]
        super().__init__()
        if bias is None:
            raise ValueError("rlrr shifts every bias; use a backbone whose linear maps all have one")
        outputs, inputs = weight.shape
        # |row| < sqrt 6 and |column| < sqrt(6 / inputs): no weight starts as pretrained, as released
        self.row = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(outputs, 1)))
        self.column = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(1, inputs)))
        self.shift = nn.Parameter(torch.zeros(outputs))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight * (1 + self.row * self.column), None if bias is None else bias + self.shift


@register("rlrr")
@dataclass(frozen=True)
class RLRR(Method):
    """Every weight matrix rescaled entry by entry with one plus a rank-one matrix, every bias shifted."""

    title = "RLRR"
    paper = Paper("CVPR", 2024, "2403.19067", "zstarN70/RLRR")
    equation = r"W' = W \odot (1 + s_{row} s_{col}^T), \quad b' = b + \beta"
    places = "patch embedding, LayerNorms, all linears"
    evidence = "golden"
    starts_as_identity = False

    def inject(self, vit: VisionTransformer) -> None:
        transform_linears(vit, _SITES, Rescaling)
        scale_and_shift(vit, NORMS)

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)
        fold(vit, NORMS)

    def expected_params(self, vit: VisionTransformer) -> int:
        norms = 2 * len(vit.blocks) + 1
        linears = sum(inputs + 2 * outputs for inputs, outputs in site_shapes(vit, _SITES))
        return linears + 2 * vit.embed_dim * (1 + norms)
