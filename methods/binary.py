"""Bi-LoRA and Bi-AdaptFormer (Jie et al., ICCV 2023, arXiv:2307.16867): adapters with weights of a few bits each.

Training keeps full-precision weights behind the quantised ones (JieShibo/PETL-ViT binary_adapter/).
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import NormalDist

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register, require_positive
from .blocks import branches
from .updates import Update, merge_linears, parse_sites, site_shapes, update_linears


@cache
def codebook(bits: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The 2^bits levels of a standard normal variable, and the thresholds between them.

    Each threshold is the mean of its two levels, each level the median of what lies between its thresholds
    (binary_adapter/utils.py:64-75, as many iterations: converged up to 4 bits, wrong by 0.015 at 5 and by 0.4 at 6).
    """
    normal, levels = NormalDist(), [0.0] * 2**bits
    thresholds: list[float] = []
    for _ in range(500):
        thresholds = [(low + high) / 2 for low, high in pairwise(levels)]
        below = [0.0, *map(normal.cdf, thresholds), 1.0]
        levels = [normal.inv_cdf((low + high) / 2) for low, high in pairwise(below)]
    return tuple(levels), tuple(thresholds)


class QuantisedLinear(nn.Linear):
    """y = Q(W) x, where Q rounds the standardised entries of W to the codebook and undoes the standardisation."""

    levels: Tensor
    thresholds: Tensor

    def __init__(self, inputs: int, outputs: int, bits: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        levels, thresholds = codebook(bits)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("thresholds", torch.tensor(thresholds), persistent=False)

    def quantised(self) -> Tensor:
        """[outputs, inputs].  Rounding has the gradient of the identity; mean and deviation have their own."""
        mean, std = self.weight.mean(), self.weight.std()
        z = (self.weight - mean) / (std + 1e-5)  # utils.py:30
        rounded = self.levels[torch.bucketize(z.detach(), self.thresholds)]
        return (rounded + (z - z.detach())) * std + mean

    def forward(self, input: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return F.linear(input, self.quantised())


def _pair(inputs: int, width: int, outputs: int, bits: int) -> tuple[QuantisedLinear, QuantisedLinear]:
    """Down and up.  Up cannot start at zero, as it has no spread then: lora.py:35, adaptformer.py:24."""
    down, up = QuantisedLinear(inputs, width, bits), QuantisedLinear(width, outputs, bits)
    nn.init.trunc_normal_(up.weight, std=0.001, a=-0.002, b=0.002)
    return down, up


class QuantisedLowRank(Update):
    """x -> s Q(B) drop(Q(A) x)."""

    def __init__(self, weight: Tensor, rank: int, bits: int, scale: float, dropout: float) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.down, self.up = _pair(inputs, rank, outputs, bits)
        self.scale, self.dropout = scale, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return self.up(self.dropout(self.down(x))) * self.scale

    def delta(self) -> Tensor:
        return self.up.quantised() @ self.down.quantised() * self.scale


class QuantisedBottleneck(nn.Module):
    """x -> s Q(W_u) drop(relu(Q(W_d) x))."""

    def __init__(self, d: int, bottleneck: int, bits: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.down, self.up = _pair(d, bottleneck, d, bits)
        self.scale, self.dropout = scale, nn.Dropout(dropout)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # [b, n, d], of which h is not read
        return self.up(self.dropout(self.down(x).relu())) * self.scale


def _check_bits(bits: int) -> None:
    if bits not in range(1, 5):
        raise ValueError(f"bits must be 1, 2, 3 or 4, where the codebook has converged, not {bits}")


@register("bi_lora")
@dataclass(frozen=True)
class BiLoRA(Method):
    """LoRA whose factors have one bit per entry, beside a mean and a deviation each."""

    rank: int = 32
    bits: int = 1
    scale: float = 1.0
    dropout: float = 0.1
    sites: str = "qv"
    title = "Bi-LoRA"
    paper = Paper("ICCV", 2023, "2307.16867", "JieShibo/PETL-ViT")
    equation = r"W' = W + s\,Q(B)\,Q(A)"
    places = "q, v"
    evidence = "golden"
    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0)}  # binary_adapter/configs/
    starts_as_identity = False  # B starts at +-0.67 of its deviation

    def __post_init__(self) -> None:
        parse_sites(self.sites)
        require_positive(rank=self.rank)
        _check_bits(self.bits)

    def inject(self, vit: VisionTransformer) -> None:
        def make(weight: Tensor, _: Tensor | None) -> Update:
            return QuantisedLowRank(weight, self.rank, self.bits, self.scale, self.dropout)

        update_linears(vit, self.sites, make)

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.rank * (inputs + outputs) for inputs, outputs in site_shapes(vit, self.sites))


@register("bi_adaptformer")
@dataclass(frozen=True)
class BiAdaptFormer(Method):
    """AdaptFormer without biases, whose weights have one bit per entry, beside a mean and a deviation each."""

    bottleneck: int = 32
    bits: int = 1
    scale: float = 1.0
    dropout: float = 0.1
    title = "Bi-AdaptFormer"
    paper = Paper("ICCV", 2023, "2307.16867", "JieShibo/PETL-ViT")
    equation = r"x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)) + s\,Q(W_u)\,\mathrm{ReLU}(Q(W_d)\,x)"
    places = "beside the MLP"
    evidence = "golden"
    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0)}  # binary_adapter/configs/
    starts_as_identity = False  # W_u starts at +-0.67 of its deviation

    def __post_init__(self) -> None:
        require_positive(bottleneck=self.bottleneck)
        _check_bits(self.bits)

    def inject(self, vit: VisionTransformer) -> None:
        d = vit.embed_dim
        for i, block in enumerate(vit.blocks):
            attention, mlp = branches(block)
            mlp.beside = QuantisedBottleneck(d, self.bottleneck, self.bits, self.scale, self.dropout)
            vit.blocks[i] = nn.Sequential(attention, mlp)

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * 2 * vit.embed_dim * self.bottleneck
