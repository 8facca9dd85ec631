"""GIFT and WeGeFT (Savadikar et al., ICML 2025, arXiv:2312.00700): an update generated from the frozen weight.

    W' = W + s (W A^T) B,   A, B: [rank, inputs], one pair for all blocks

GIFT, the first version, has s = 1 and initially B = 0 (savadikarc/gift gift/modeling_gift.py, with its identity
block).  WeGeFT has s = alpha / rank and initially A = 0.  Its code is not available; a test repeats its formula.
"""

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Paper, method
from .updates import LinearUpdateMethod, Transform, site_shapes, update_linears


class Projections(nn.Module):
    """The factors A and B, [rank, inputs], which all blocks share; one of them is initially zero."""

    def __init__(self, inputs: int, rank: int, zero_first: bool) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.zeros(rank, inputs)) for _ in range(2))
        nn.init.kaiming_uniform_(self.b if zero_first else self.a, a=math.sqrt(5))


class Generated(Transform):
    """W -> W + scale (W A^T) B."""

    def __init__(self, shared: Projections, scale: float) -> None:
        super().__init__()
        self.shared, self.scale = shared, scale

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.scale * (weight @ self.shared.a.T) @ self.shared.b, bias


@method("gift")
class GIFT(LinearUpdateMethod):
    """Generates the update of each weight from the weight itself, by one pair of projections for all blocks."""

    rank: PositiveInt = 16
    sites: str = "o"
    title = "GIFT"
    paper = Paper("ICML", 2025, "2312.00700", "savadikarc/gift")
    equation = r"W' = W + W A^\top B,\ A, B \in \mathbb{R}^{r \times d} \text{ shared by all blocks}"
    targets = "o"
    evidence = "authors' module"
    search = {"rank": (8, 16, 32)}  # ours

    def scale(self) -> float:
        return 1.0

    def projections(self, inputs: int) -> Projections:
        return Projections(inputs, self.rank, zero_first=False)

    def inject(self, vit: VisionTransformer) -> None:
        shared = {inputs: self.projections(inputs) for inputs in sorted({i for i, _ in site_shapes(vit, self.sites)})}
        update_linears(vit, self.sites, lambda weight, _: Generated(shared[weight.shape[1]], self.scale()))

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(2 * self.rank * inputs for inputs in {inputs for inputs, _ in site_shapes(vit, self.sites)})


@method("wegeft")
class WeGeFT(GIFT):
    """Scales the generated update, and starts from a zero first projection instead of a zero second one."""

    alpha: float = 16.0
    title = "WeGeFT"
    paper = Paper("ICML", 2025, "2312.00700")
    equation = r"W' = W + \tfrac{\alpha}{r} W \phi^\top \psi,\ \phi, \psi \in \mathbb{R}^{r \times d} \text{ shared}"
    evidence = "paper only"

    def scale(self) -> float:
        return self.alpha / self.rank

    def projections(self, inputs: int) -> Projections:
        return Projections(inputs, self.rank, zero_first=True)
