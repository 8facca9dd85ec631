"""CaRA, canonical rank adaptation (Veeramacheneni et al., ICML 2025): updates as two CP-factorised tensors.

One tensor [3 layers, d, heads, head width] holds the q, k and v updates of all layers.  The other, [chunks, d, d],
holds the d x d chunks of all o, fc1 and fc2 updates.  Each is a sum of r rank-one tensors,

    T = sum_r lambda_r  a1_r o a2_r o a3_r o a4_r,

whose factors all layers share (BonnBytes/CaRA src/cara/cara.py).
"""

from collections.abc import Callable
from itertools import product
from typing import cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import init

from .anatomy import mlp_width
from .arguments import PositiveInt, Rate
from .base import Paper, method
from .fact import mlp_ratio
from .updates import ALL_SITES, SITES, LinearUpdateMethod, Update, update_linears


class Factors(nn.Module):
    """Factors [positions, r] of every axis and weights [r] of both tensors, and the biases of o, fc1 and fc2."""

    def __init__(self, vit: VisionTransformer, rank: int, mean: float, std: float) -> None:
        super().__init__()
        d, layers, heads = vit.embed_dim, len(vit.blocks), _heads(vit)
        self.ratio = mlp_ratio(vit)

        def factor(positions: int, initialise: Callable[[Tensor], Tensor]) -> nn.Parameter:
            return nn.Parameter(initialise(torch.empty(positions, rank)))

        self.a1 = factor(3 * layers, init.xavier_normal_)
        self.a2 = factor(d, init.zeros_)  # zero, like p2: initially the pretrained model
        self.a3 = factor(heads, init.orthogonal_)
        self.a4 = factor(d // heads, init.orthogonal_)
        self.p1 = factor((1 + 2 * self.ratio) * layers, init.xavier_normal_)
        self.p2 = factor(d, init.zeros_)
        self.p3 = factor(d, init.orthogonal_)
        self.r1, self.r2 = (nn.Parameter(torch.empty(rank).normal_(mean, std)) for _ in range(2))
        widths = {"o": d, "fc1": mlp_width(vit.blocks[0]), "fc2": d}
        self.biases = nn.ParameterDict({site: nn.Parameter(torch.zeros(width)) for site, width in widths.items()})

    def read_and_write(self, layer: int, site: str) -> tuple[Tensor, Tensor]:
        """Return the factors [inputs, r] and [outputs, r] of one linear map's update."""
        if site in "qkv":
            row = 3 * layer + "qkv".index(site)
            return self.a2 * (self.r1 * self.a1[row]), khatri_rao(self.a3, self.a4)
        first = (1 + 2 * self.ratio) * layer + {"o": 0, "fc1": 1, "fc2": 1 + self.ratio}[site]
        chunks = self.p1[first : first + (1 if site == "o" else self.ratio)]
        stacked = khatri_rao(self.r2 * chunks, self.p2)
        return (stacked, self.p3) if site == "fc2" else (self.p3, stacked)


class CPUpdate(Update):
    """x -> s (Write Read^T x + bias), with dropout on the entries of Write Read^T."""

    def __init__(self, factors: Factors, layer: int, site: str, scale: float, dropout: float) -> None:
        super().__init__()
        self.factors, self.layer, self.site = factors, layer, site
        self.scale, self.dropout = scale, nn.Dropout(dropout)

    def bias(self) -> Tensor | None:
        return self.factors.biases.get(self.site)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        read, write = self.factors.read_and_write(self.layer, self.site)
        if self.training and self.dropout.p:  # dropped entries do not factorise
            return F.linear(x, self.dropout(write @ read.T), self.bias()) * self.scale
        return F.linear(F.linear(x, read.T), write, self.bias()) * self.scale

    def delta(self) -> Tensor:
        read, write = self.factors.read_and_write(self.layer, self.site)
        return write @ read.T * self.scale

    def bias_delta(self) -> Tensor | None:
        bias = self.bias()
        return None if bias is None else bias * self.scale


@method("cara")
class CaRA(LinearUpdateMethod):
    """Factorises the updates into two sums of rank-one tensors, one for q, k, v and one for the other maps."""

    rank: PositiveInt = 32
    scale: float = 1.0
    """Ours; the released configurations set 0.1 to 100 per task, with a median of 10."""
    init_mean: float = 1.0
    """Mean of the initial weights of the rank-one tensors; the release sets 0.9 to 1.5 per task, mostly 1."""
    init_std: float = 0.0
    """Standard deviation of the same weights; the release sets 0 to 0.1 per task, mostly 0."""
    dropout: Rate = 0.1
    """Dropout of the entries of the dense updates, as released; 0 is faster, as no dense update is formed."""
    title = "CaRA"
    paper = Paper("ICML", 2025, None, "BonnBytes/CaRA")
    equation = r"W' = W + s \sum_r \lambda_r\, a^1_{m,r}\, a^2_r \circ a^3_r \circ a^4_r"
    targets = "q, k, v, o, fc1, fc2"
    evidence = "authors' training"
    differs = "The released configurations tune the scale per task, with a median of 10; `tune` covers it."
    search = {"scale": (0.1, 1.0, 10.0, 100.0)}
    sites = ALL_SITES

    def validate(self) -> None:
        if self.init_std < 0:
            raise ValueError(f"init_std is a standard deviation, so at least 0, not {self.init_std}")

    def validate_backbone(self, vit: VisionTransformer) -> None:
        mlp_ratio(vit)

    def inject(self, vit: VisionTransformer) -> None:
        factors = Factors(vit, self.rank, self.init_mean, self.init_std)
        positions = product(range(len(vit.blocks)), SITES)  # in the order of `update_linears`
        update_linears(vit, self.sites, lambda *_: CPUpdate(factors, *next(positions), self.scale, self.dropout))

    def expected_params(self, vit: VisionTransformer) -> int:
        d, layers, ratio = vit.embed_dim, len(vit.blocks), mlp_ratio(vit)
        attention = 3 * layers + d + _heads(vit) + d // _heads(vit) + 1
        rest = (1 + 2 * ratio) * layers + 2 * d + 1
        return self.rank * (attention + rest) + (2 + ratio) * d


def _heads(vit: VisionTransformer) -> int:
    return cast(int, vit.blocks[0].get_submodule("attn").num_heads)


def khatri_rao(a: Tensor, b: Tensor) -> Tensor:
    """Return the column-wise Kronecker product of [i, r] and [j, r], [i j, r]."""
    return (a[:, None] * b).flatten(0, 1)
