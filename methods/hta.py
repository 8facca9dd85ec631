"""HTA, Householder transformation adaptation (Dong et al., NeurIPS 2024, arXiv:2410.22952).

The update is written like a singular value decomposition whose unitary matrices are Householder matrices, each made of
one vector, beside a product of rank 1 (eq. 3, 5 and 6).  As in eq. 3 the vectors are not normalised.

No repository is public.  From the paper's counts (Table 1, Table 3 and the appendix's Table 7: 0.15, 0.22, 0.30
and 0.44 M with the head at rank 0, 1, 2 and 4; 0.54 M for ViT-L) it follows that q, k, v and o have a matrix of this
kind each.  For fc1 and fc2 the text leaves open what the diagonal of a matrix that is not square is.
"""

import math
from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register, require_positive
from .lora import LowRank
from .updates import Update, merge_linears, parse_sites, site_shapes, update_linears


class Householder(Update):
    """x -> H_out D H_in x + B A x, where H = I - v v^T."""

    def __init__(self, weight: Tensor, rank: int) -> None:  # weight: [d, d]
        super().__init__()
        d = len(weight)
        self.v_in, self.v_out = (nn.Parameter(_reflecting(d)) for _ in range(2))
        self.diagonal = nn.Parameter(torch.zeros(d))  # ours: the model starts unchanged
        self.low_rank = LowRank(weight, rank, 1.0)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        return _transform(_transform(x, self.v_in) * self.diagonal, self.v_out) + self.low_rank(x)

    def delta(self) -> Tensor:
        scaled = _transform(torch.diag(self.diagonal), self.v_in)  # D H_in, as H is symmetric
        return _transform(scaled.T, self.v_out).T + self.low_rank.delta()


def _transform(x: Tensor, v: Tensor) -> Tensor:
    """H x for each of the vectors x [..., d]."""
    return x - (x @ v)[..., None] * v


def _reflecting(d: int) -> Tensor:
    """[d], of length sqrt 2, for which eq. 3 is a reflection; ours, and at zero no gradient would ever reach it."""
    v = torch.randn(d)
    return v * (math.sqrt(2) / v.norm())


@register("hta")
@dataclass(frozen=True)
class HTA(Method):
    """A diagonal between two Householder matrices, and a product of rank 1, added to each attention weight."""

    rank: int = 1
    """Of the product beside, D'."""
    sites: str = "qkvo"
    title = "HTA"
    paper = Paper("NeurIPS", 2024, "2410.22952")
    equation = r"W' = W + (I - v_l v_l^\top)\,\mathrm{diag}(d)\,(I - v_r v_r^\top) + B A"
    places = "q, k, v, o"
    evidence = "paper only"
    search = {"rank": (1, 2, 4)}  # Figure 2

    def __post_init__(self) -> None:
        require_positive(rank=self.rank)
        if odd := [site for site in parse_sites(self.sites) if site.startswith("fc")]:
            raise ValueError(f"sites={self.sites!r}: hta needs square weights, q, k, v or o, and {odd[0]} has none")

    def inject(self, vit: VisionTransformer) -> None:
        update_linears(vit, self.sites, lambda weight, _: Householder(weight, self.rank))

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum((3 + 2 * self.rank) * d for d, _ in site_shapes(vit, self.sites))
