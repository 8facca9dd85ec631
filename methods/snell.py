"""SNELL, sparse tuning with kernelised LoRA (Shen et al., NeurIPS 2024, arXiv:2411.01800).

The update's entry for output o and input i is a difference of two distances between learned points, |p_o - p_i| of one
kind minus that of another, so that few numbers make a matrix of high rank.  Entries that are small compete away:

    K = s (D_1 - D_2),   dW = K * |K| where |K| is above its quantile, else 0,

the factor |K| being constant in the backward pass (ssfgunner/SNELL model/vision_transformer_timm.py:181-298).
"""

import math
from dataclasses import dataclass
from itertools import cycle

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register
from .updates import SITES, Update, merge_linears, site_shapes, update_linears

_SITES = ",".join(SITES)


class KernelUpdate(Update):
    """x -> drop_path(dW drop(x)).

    A separate product, as dW is so small at first that the sum with W in bf16 would lose it.
    """

    def __init__(self, weight: Tensor, method: "SNELL", dropout: float) -> None:  # weight: [outputs, inputs]
        super().__init__()
        outputs, inputs = weight.shape
        self.scale, self.sparsity = method.scale, method.sparsity
        self.outputs, self.inputs = (
            nn.Parameter(nn.init.kaiming_uniform_(torch.empty(2, n, method.rank // 2), a=math.sqrt(5)))
            for n in (outputs, inputs)
        )
        self.dropout, self.drop_path = nn.Dropout(dropout), DropPath(method.drop_path)

    def delta(self) -> Tensor:  # [outputs, inputs]
        first, second = torch.cdist(self.outputs, self.inputs)
        kernel = self.scale * (first - second)
        if not self.sparsity:
            return kernel
        size = kernel.detach().abs()
        return kernel * size * (size > torch.quantile(size, self.sparsity))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return self.drop_path(F.linear(self.dropout(x), self.delta()))


@register("snell")
@dataclass(frozen=True)
class SNELL(Method):
    """Sparse updates of all weights, made from low-dimensional points by a distance kernel."""

    rank: int = 32
    """Coordinates of a point, half of them for each of the two distances."""
    sparsity: float = 0.4
    """Share of entries that are zero; at 0 the update is K.  The released VTAB scripts take 0 to 0.995, median 0.4."""
    scale: float = 0.1
    dropout: float = 0.1
    """Of what the updates read, that of o excepted, as released.  Here q, k and v each drop entries of their own; the
    release drops once for the three."""
    drop_path: float = 0.1
    title = "SNELL"
    paper = Paper("NeurIPS", 2024, "2411.01800", "ssfgunner/SNELL")
    equation = r"\Delta W = K \odot |K| \odot [\,|K| > t\,], \quad K_{oi} = s(\|p_o - p_i\| - \|p'_o - p'_i\|)"
    places = "q, k, v, o, fc1, fc2"
    evidence = "golden"
    search = {"sparsity": (0.0, 0.4, 0.9, 0.99)}
    starts_as_identity = False

    def __post_init__(self) -> None:
        if self.rank < 2 or self.rank % 2:
            raise ValueError(f"rank must be even and at least 2, as two distances share it, not {self.rank}")
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be at least 0 and below 1, not {self.sparsity}")

    def inject(self, vit: VisionTransformer) -> None:
        dropouts = cycle(0.0 if site == "o" else self.dropout for site in SITES)  # in the order the maps come in
        update_linears(vit, _SITES, lambda weight, _: KernelUpdate(weight, self, next(dropouts)))

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.rank * (inputs + outputs) for inputs, outputs in site_shapes(vit, _SITES))
