"""CaRA, canonical rank adaptation (Veeramacheneni et al., ICML 2025): the updates as two CP-factorised tensors.

The q, k, v updates of all layers are one tensor [3 layers, d, heads, head width], the d x d chunks of all o, fc1 and
fc2 another, [chunks, d, d].  Each is a sum of r rank-one tensors whose factors all layers share
(BonnBytes/CaRA src/cara/cara.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import init

from .anatomy import mlp_width
from .base import Method, Paper, register, require_positive
from .fact import mlp_ratio
from .updates import SITES, Update, merge_linears, update_linears


class Factors(nn.Module):
    """Of both tensors: a factor [positions, r] for every axis, and weights [r].  Also the biases of o, fc1, fc2."""

    def __init__(self, vit: VisionTransformer, rank: int, mean: float, std: float) -> None:
        super().__init__()
        d, layers, heads = vit.embed_dim, len(vit.blocks), _heads(vit)
        self.ratio = mlp_ratio(vit)

        def factor(positions: int, start: Callable[[Tensor], Tensor]) -> nn.Parameter:
            return nn.Parameter(start(torch.empty(positions, rank)))

        self.a1 = factor(3 * layers, init.xavier_normal_)
        self.a2 = factor(d, init.zeros_)  # zero, like p2: the model starts unchanged
        self.a3 = factor(heads, init.orthogonal_)
        self.a4 = factor(d // heads, init.orthogonal_)
        self.p1 = factor((1 + 2 * self.ratio) * layers, init.xavier_normal_)
        self.p2 = factor(d, init.zeros_)
        self.p3 = factor(d, init.orthogonal_)
        self.r1, self.r2 = (nn.Parameter(torch.empty(rank).normal_(mean, std)) for _ in range(2))
        widths = {"o": d, "fc1": mlp_width(vit.blocks[0]), "fc2": d}
        self.biases = nn.ParameterDict({site: nn.Parameter(torch.zeros(width)) for site, width in widths.items()})

    def read_and_write(self, layer: int, site: str) -> tuple[Tensor, Tensor]:
        """[inputs, r] and [outputs, r], whose product is the update of one linear map."""
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


@register("cara")
@dataclass(frozen=True)
class CaRA(Method):
    """All updates as two tensors, one of q, k, v and one of the rest, each a short sum of rank-one tensors."""

    rank: int = 32
    scale: float = 1.0
    """Between 0.1 and 100 per task in the released configurations."""
    init_mean: float = 1.0
    """Of the initial weights of the rank-one tensors: 0.9 to 1.5 per task as released, mostly 1."""
    init_std: float = 0.0
    """Of the same: 0 to 0.1 per task as released, mostly 0."""
    dropout: float = 0.1
    """Of the entries of the dense updates, as released; at 0 training never forms them and is faster."""
    title = "CaRA"
    paper = Paper("ICML", 2025, None, "BonnBytes/CaRA")
    equation = r"W' = W + s \sum_r \lambda_r\, a^1_{m,r}\, a^2_r \circ a^3_r \circ a^4_r"
    places = "q, k, v, o, fc1, fc2"
    evidence = "golden"
    search = {"scale": (0.1, 1.0, 10.0, 100.0)}

    def __post_init__(self) -> None:
        require_positive(rank=self.rank)
        if self.init_std < 0:
            raise ValueError(f"init_std is a standard deviation, so at least 0, not {self.init_std}")

    def inject(self, vit: VisionTransformer) -> None:
        factors = Factors(vit, self.rank, self.init_mean, self.init_std)
        places = product(range(len(vit.blocks)), SITES)  # the order in which they are asked for
        sites = ",".join(SITES)
        update_linears(vit, sites, lambda *_: CPUpdate(factors, *next(places), self.scale, self.dropout))

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        d, layers, ratio = vit.embed_dim, len(vit.blocks), mlp_ratio(vit)
        attention = 3 * layers + d + _heads(vit) + d // _heads(vit) + 1
        rest = (1 + 2 * ratio) * layers + 2 * d + 1
        return self.rank * (attention + rest) + (2 + ratio) * d


def _heads(vit: VisionTransformer) -> int:
    return cast(int, vit.blocks[0].get_submodule("attn").num_heads)


def khatri_rao(a: Tensor, b: Tensor) -> Tensor:
    """[i, r] and [j, r] -> [i j, r], column by column their Kronecker product."""
    return (a[:, None] * b).flatten(0, 1)
