"""Methods that train a few entries at random places of a matrix that is added to the weight: SHiRA and WaveFT.

The places are buffers, so that adapters contain them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Paper, method
from .updates import LinearUpdateMethod, Transform


class SparseMatrix(Transform):
    """W -> W + scale * f(S), where S is zero but for trained values at random places.

    f: maps S [out, in] to the update of the weight.
    """

    places: Tensor

    def __init__(self, weight: Tensor, count: int, scale: float, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if count > weight.numel():
            raise ValueError(f"{count} trained entries are more than the {weight.numel()} of a weight here")
        self.register_buffer("places", torch.randperm(weight.numel())[:count])
        self.values = nn.Parameter(torch.zeros(count))
        self.scale, self.f = scale, f

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        values = self.values * self.scale
        matrix = values.new_zeros(weight.numel()).index_copy(0, self.places, values)
        return weight + self.f(matrix.view_as(weight)), bias


def itself(matrix: Tensor) -> Tensor:
    """Return the matrix."""
    return matrix


def inverse_haar(bands: Tensor) -> Tensor:
    """Return the inverse of one level of the orthonormal two-dimensional Haar transform, [rows, columns], both even.

    bands: the four bands as quadrants: averages, differences of rows, differences of columns, and both.
    """
    (average, rows), (columns, both) = (half.chunk(2, dim=1) for half in bands.chunk(2))
    pairs = ((average, columns), (rows, both))
    low, high = (torch.stack([left + right, left - right], dim=2).flatten(1) for left, right in pairs)
    return torch.stack([low + high, low - high], dim=1).flatten(0, 1) / 2


@method("shira")
class SHiRA(LinearUpdateMethod):
    """Trains entries of each weight at random places."""

    rank: PositiveInt = 8
    """Trains as many entries as LoRA of this rank has parameters."""
    sites: str = "qv"
    title = "SHiRA"
    paper = Paper("NeurIPS", 2024, "2406.13175", "Qualcomm-AI-research/SHiRA")
    equation = r"W' = W + S,\ S \text{ zero outside } r (in + out) \text{ random places}"
    targets = "q, v"
    evidence = "reference implementation"
    differs = (
        "The authors' code is in peft, where weights of one shape have the same places; here each has its own, drawn "
        "from the run's seed. The number of entries is that of `lora`; peft's rank is 32."
    )
    search = {"rank": (4, 8, 16)}
    backbones = ("vit", "swin")

    def make_update(self, weight: Tensor, bias: Tensor | None) -> SparseMatrix:
        return SparseMatrix(weight, self.update_params(*weight.T.shape), 1.0, itself)

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs)


@method("waveft")
class WaveFT(LinearUpdateMethod):
    """Adds to each weight the inverse Haar transform of a few trained coefficients at random places."""

    coefficients: PositiveInt = 1000
    """Trained coefficients per weight."""
    scale: float = 25.0
    sites: str = "qv"
    title = "WaveFT"
    paper = Paper("arXiv", 2025, "2505.12532", "Bilican/Sparse_PEFT")
    equation = r"W' = W + \alpha\, \mathrm{IDWT}(C),\ C \text{ zero outside } n \text{ random places}"
    targets = "q, v"
    evidence = "authors' module"
    differs = (
        "Each weight has places of its own, drawn from the run's seed; the release has the same ones in weights of one "
        "shape. The number of coefficients is that of `fourierft`; the release sets 2592."
    )
    search = {"coefficients": (1000, 3000), "scale": (5.0, 25.0)}
    backbones = ("vit", "swin")

    def make_update(self, weight: Tensor, bias: Tensor | None) -> SparseMatrix:
        return SparseMatrix(weight, self.coefficients, self.scale, inverse_haar)

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.coefficients
