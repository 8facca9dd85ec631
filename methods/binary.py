"""Bi-LoRA and Bi-AdaptFormer (Jie et al., ICCV 2023, arXiv:2307.16867): adapters whose weights have a few bits.

    Q(W) = std(W) * codebook[(W - mean(W)) / std(W)] + mean(W)

Training updates full-precision weights and uses the quantised ones (JieShibo/PETL-ViT binary_adapter/).
"""

from functools import cache
from itertools import pairwise
from statistics import NormalDist
from typing import Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Method, Paper, method
from .blocks import branches
from .initial_values import trunc_normal_
from .updates import LinearUpdateMethod, Update


@cache
def codebook(bits: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the 2^bits levels for a standard normal variable, and the thresholds between them.

    Each threshold is the mean of its two levels, and each level is the median of its interval.  The number of
    iterations is the release's (binary_adapter/utils.py:64-75): converged up to 4 bits, off by 0.015 at 5 and 0.4 at 6.
    """
    normal, levels = NormalDist(), [0.0] * 2**bits
    thresholds: list[float] = []
    for _ in range(500):
        thresholds = [(low + high) / 2 for low, high in pairwise(levels)]
        below = [0.0, *map(normal.cdf, thresholds), 1.0]
        levels = [normal.inv_cdf((low + high) / 2) for low, high in pairwise(below)]
    return tuple(levels), tuple(thresholds)


class QuantisedLinear(nn.Linear):
    """y = Q(W) x, where Q standardises the entries of W, rounds them to the codebook and undoes the standardisation."""

    levels: Tensor
    thresholds: Tensor

    def __init__(self, inputs: int, outputs: int, bits: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        levels, thresholds = codebook(bits)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("thresholds", torch.tensor(thresholds), persistent=False)

    def quantised(self) -> Tensor:
        """Return Q(W) [outputs, inputs]; rounding has the gradient of the identity, mean and deviation have theirs."""
        mean, std = self.weight.mean(), self.weight.std()
        z = (self.weight - mean) / (std + 1e-5)  # utils.py:30
        rounded = self.levels[torch.bucketize(z.detach(), self.thresholds)]
        return (rounded + (z - z.detach())) * std + mean

    def forward(self, input: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return F.linear(input, self.quantised())


def _pair(inputs: int, width: int, outputs: int, bits: int) -> tuple[QuantisedLinear, QuantisedLinear]:
    """Return down- and up-projection; up is not zero, as Q needs a spread: lora.py:35, adaptformer.py:24."""
    down, up = QuantisedLinear(inputs, width, bits), QuantisedLinear(width, outputs, bits)
    trunc_normal_(up.weight, std=0.001, limit=0.002)
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

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # [b, n, d]; h is unused
        return self.up(self.dropout(self.down(x).relu())) * self.scale


Bits = Literal[1, 2, 3, 4]
"""Bits per weight, as far as the codebook has converged."""


@method("bi_lora")
class BiLoRA(LinearUpdateMethod):
    """LoRA whose factors have one bit per entry, plus one mean and one deviation per factor."""

    rank: PositiveInt = 32
    bits: Bits = 1
    scale: float = 1.0
    dropout: Rate = 0.1
    sites: str = "qv"
    title = "Bi-LoRA"
    paper = Paper("ICCV", 2023, "2307.16867", "JieShibo/PETL-ViT")
    equation = r"W' = W + s\,Q(B)\,Q(A)"
    targets = "q, v"
    evidence = "authors' training"
    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0)}  # binary_adapter/configs/
    starts_as_identity = False  # the initial entries of Q(B) are +-0.67 of its deviation

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update:
        return QuantisedLowRank(weight, self.rank, self.bits, self.scale, self.dropout)

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs)


@method("bi_adaptformer")
class BiAdaptFormer(Method):
    """AdaptFormer without biases, whose weights have one bit per entry, plus one mean and one deviation each."""

    bottleneck: PositiveInt = 32
    bits: Bits = 1
    scale: float = 1.0
    dropout: Rate = 0.1
    title = "Bi-AdaptFormer"
    paper = Paper("ICCV", 2023, "2307.16867", "JieShibo/PETL-ViT")
    equation = r"x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)) + s\,Q(W_u)\,\mathrm{ReLU}(Q(W_d)\,x)"
    targets = "parallel to the MLP"
    evidence = "authors' training"
    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0)}  # binary_adapter/configs/
    starts_as_identity = False  # the initial entries of Q(W_u) are +-0.67 of its deviation

    def inject(self, vit: VisionTransformer) -> None:
        d = vit.embed_dim
        for i, block in enumerate(vit.blocks):
            attention, mlp = branches(block)
            mlp.beside = QuantisedBottleneck(d, self.bottleneck, self.bits, self.scale, self.dropout)
            vit.blocks[i] = nn.Sequential(attention, mlp)

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * 2 * vit.embed_dim * self.bottleneck
