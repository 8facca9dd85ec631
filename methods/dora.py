"""DoRA, weight-decomposed LoRA (Liu et al., ICML 2024, arXiv:2402.09353): length and direction of rows are separate.

W' = m * V / |V| row by row,   V = W + (alpha / rank) B A,   m: [out]
"""

from torch import Tensor, nn

from .base import Paper, method
from .lora import LoRA, LowRank
from .updates import Transform


class Decomposed(Transform):
    """W -> m V / |V| row by row, where V = W + scale * B A."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:  # weight: [outputs, inputs]
        super().__init__()
        self.direction = LowRank(weight, rank, scale)
        self.magnitude = nn.Parameter(weight.norm(dim=1))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        directed = weight + self.direction.delta()
        lengths = directed.norm(dim=1).detach()  # constant in the backward pass: section 4.3 of the paper
        return (self.magnitude / lengths)[:, None] * directed, bias


@method("dora")
class DoRA(LoRA):
    """Trains the length of each row of a weight, and its direction by LoRA."""

    title = "DoRA"
    paper = Paper("ICML", 2024, "2402.09353", "NVlabs/DoRA")
    equation = r"W' = m \odot \frac{W + \frac{\alpha}{r} B A}{\lVert W + \frac{\alpha}{r} B A \rVert_{row}}"
    evidence = "authors' module"

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Transform:
        return Decomposed(weight, self.rank, self.scale())

    def update_params(self, inputs: int, outputs: int) -> int:
        return super().update_params(inputs, outputs) + outputs
