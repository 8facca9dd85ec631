"""HTA, Householder transformation adaptation (Dong et al., NeurIPS 2024, arXiv:2410.22952).

    W' = W + H_out diag(d) H_in + B A,   H = I - v v^T

The update has the form of a singular value decomposition whose orthogonal matrices are Householder matrices, each
given by one vector, plus a product of rank 1 (eq. 3, 5 and 6).  As in eq. 3, the vectors are not normalised.

No official code is public.  The paper's parameter counts imply that q, k, v and o have one such update each (Table 1,
Table 3 and Table 7 of the appendix: 0.15, 0.22, 0.30 and 0.44 M with head at rank 0, 1, 2 and 4; 0.54 M for ViT-L).
The text does not define the diagonal of a rectangular matrix, so fc1 and fc2 are not supported.
"""

import math

import torch
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Paper, method
from .lora import LowRank
from .updates import LinearUpdateMethod, Update, parse_sites


class Householder(Update):
    """x -> H_out D H_in x + B A x, where H = I - v v^T."""

    def __init__(self, weight: Tensor, rank: int) -> None:  # weight: [d, d]
        super().__init__()
        d = len(weight)
        self.v_in, self.v_out = (nn.Parameter(_initial_vector(d)) for _ in range(2))
        self.diagonal = nn.Parameter(torch.zeros(d))  # ours: initially the pretrained model
        self.low_rank = LowRank(weight, rank, 1.0)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        return _transform(_transform(x, self.v_in) * self.diagonal, self.v_out) + self.low_rank(x)

    def delta(self) -> Tensor:
        scaled = _transform(torch.diag(self.diagonal), self.v_in)  # D H_in, as H is symmetric
        return _transform(scaled.T, self.v_out).T + self.low_rank.delta()


def _transform(x: Tensor, v: Tensor) -> Tensor:
    """Multiply each vector of x [..., d] by H."""
    return x - (x @ v)[..., None] * v


def _initial_vector(d: int) -> Tensor:
    """Return a random vector [d] of length sqrt 2, for which H is a reflection.

    The choice is ours.  A zero vector would never get a gradient.
    """
    v = torch.randn(d)
    return v * (math.sqrt(2) / v.norm())


@method("hta")
class HTA(LinearUpdateMethod):
    """Adds a diagonal matrix between two Householder matrices, and a rank-one product, to each attention weight."""

    rank: PositiveInt = 1
    """Rank of the product B A, which the paper calls D'."""
    sites: str = "qkvo"
    title = "HTA"
    paper = Paper("NeurIPS", 2024, "2410.22952")
    equation = r"W' = W + (I - v_l v_l^\top)\,\mathrm{diag}(d)\,(I - v_r v_r^\top) + B A"
    targets = "q, k, v, o"
    evidence = "paper only"
    search = {"rank": (1, 2, 4)}  # Figure 2

    def validate(self) -> None:
        if odd := [site for site in parse_sites(self.sites) if site.startswith("fc")]:
            raise ValueError(
                f"sites={self.sites!r}: hta needs square weights, q, k, v or o, but {odd[0]} is not square"
            )

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update:
        return Householder(weight, self.rank)

    def update_params(self, inputs: int, outputs: int) -> int:
        return (3 + 2 * self.rank) * inputs
