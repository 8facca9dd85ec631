"""FacT, factor tuning (Jie and Deng, AAAI 2023, arXiv:2212.03145): the updates of all layers as one factorised tensor.

Cut into d x d chunks (q, k, v, o are one each, fc1 and fc2 a stack of them), every linear map shares U and V:

    dW = s V S U,   S: [r, r] a chunk.

In the tensor-train form each S is its own; in the Tucker form all of them are mixtures of the slices of one core.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import mlp_width
from .base import Method, Paper, register, require_positive
from .updates import Update, merge_linears, site_shapes, update_linears

_ALL = "q,k,v,o,fc1,fc2"


class Shared(nn.Module):
    """What all layers share: U [r, d], and V [d, r], which is zero so that the model starts unchanged."""

    def __init__(self, rank: int, d: int) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(_linear_init(rank, d)), nn.Parameter(torch.zeros(d, rank))


class SharedCore(Shared):
    """And in the Tucker form C [r, r, r] and P [r, chunks of all layers]."""

    def __init__(self, rank: int, d: int, chunks: int) -> None:
        super().__init__(rank, d)
        self.c = nn.Parameter(nn.init.xavier_uniform_(torch.empty(rank, rank, rank)))
        self.p = nn.Parameter(nn.init.xavier_uniform_(torch.empty(rank, chunks)))


class FactorUpdate(Update):
    """x -> s V drop(S U x), where U and V act on each chunk of d features."""

    def __init__(self, shared: Shared, scale: float, dropout: float) -> None:
        super().__init__()
        self.shared, self.scale, self.dropout = shared, scale, nn.Dropout(dropout)

    @abstractmethod
    def core(self) -> Tensor:
        """S: [chunks out * r, chunks in * r]."""

    def forward(self, x: Tensor) -> Tensor:  # [b, n, chunks in * d] -> [b, n, chunks out * d]
        rank, d = self.shared.u.shape
        read = F.linear(x.unflatten(-1, (-1, d)), self.shared.u).flatten(-2)
        mixed = self.dropout(F.linear(read, self.core()))
        return F.linear(mixed.unflatten(-1, (-1, rank)), self.shared.v).flatten(-2) * self.scale

    def delta(self) -> Tensor:
        rank = len(self.shared.u)
        chunks = self.core().unflatten(0, (-1, rank)).unflatten(2, (-1, rank))  # [chunks out, r, chunks in, r]
        grid = torch.einsum("os,asbr,ri->aobi", self.shared.v, chunks, self.shared.u)
        return grid.flatten(2).flatten(0, 1) * self.scale


class TensorTrain(FactorUpdate):
    """S is a parameter."""

    def __init__(self, weight: Tensor, shared: Shared, scale: float, dropout: float) -> None:
        super().__init__(shared, scale, dropout)
        rank, d = shared.u.shape
        self.s = nn.Parameter(_linear_init(*(features // d * rank for features in weight.shape)))

    def core(self) -> Tensor:
        return self.s


class Tucker(FactorUpdate):
    """S is C times some columns of P, one a chunk."""

    shared: SharedCore
    columns: slice

    def __init__(self, weight: Tensor, shared: SharedCore, first: int, scale: float, dropout: float) -> None:
        super().__init__(shared, scale, dropout)
        outputs, inputs = weight.shape
        self.columns = slice(first, first + weight.numel() // shared.u.shape[1] ** 2)
        self.reads_chunks = inputs > outputs

    def core(self) -> Tensor:
        # Flattened as released (FacT/fact_tk.py:88-104), which interleaves rank and chunk: column b * chunks + k holds
        # rank index b of P's column k, so that every chunk of fc1 and fc2 has something of all their columns.
        flat = (self.shared.c @ self.shared.p[:, self.columns]).flatten(1)  # [r, r * chunks]
        return flat if self.reads_chunks else flat.T


@dataclass(frozen=True)
class _FacT(Method):
    rank: int = 16
    scale: float = 1.0
    """Between 0.01 and 100 per task in the released configurations."""
    dropout: float = 0.1
    paper = Paper("AAAI", 2023, "2212.03145", "JieShibo/PETL-ViT")
    places = "q, k, v, o, fc1, fc2"
    evidence = "golden"
    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0)}

    def __post_init__(self) -> None:
        require_positive(rank=self.rank)

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)


@register("fact_tt")
@dataclass(frozen=True)
class FacTTensorTrain(_FacT):
    """All updates between two shared projections, each with a small core of its own."""

    title = "FacT-TT"
    equation = r"W' = W + s\,V \Sigma_{l,m} U"

    def inject(self, vit: VisionTransformer) -> None:
        mlp_ratio(vit)  # refuses what is not made of chunks
        shared = Shared(self.rank, vit.embed_dim)
        update_linears(vit, _ALL, lambda weight, _: TensorTrain(weight, shared, self.scale, self.dropout))

    def expected_params(self, vit: VisionTransformer) -> int:
        chunks = len(vit.blocks) * (4 + 2 * mlp_ratio(vit))
        return 2 * vit.embed_dim * self.rank + chunks * self.rank**2


@register("fact_tk")
@dataclass(frozen=True)
class FacTTucker(_FacT):
    """All updates between two shared projections, their small cores being mixtures of one tensor's slices."""

    rank: int = 32
    title = "FacT-TK"
    equation = r"W' = W + s\,V (C \times_3 p_{l,m}) U"

    def inject(self, vit: VisionTransformer) -> None:
        d = vit.embed_dim
        mlp_ratio(vit)  # refuses what is not made of chunks
        *firsts, chunks = accumulate((i * o // d**2 for i, o in site_shapes(vit, _ALL)), initial=0)
        first, shared = iter(firsts), SharedCore(self.rank, d, chunks)  # maps come in the order of `site_shapes`
        update_linears(vit, _ALL, lambda weight, _: Tucker(weight, shared, next(first), self.scale, self.dropout))

    def expected_params(self, vit: VisionTransformer) -> int:
        chunks = len(vit.blocks) * (4 + 2 * mlp_ratio(vit))
        return 2 * vit.embed_dim * self.rank + self.rank * chunks + self.rank**3


def mlp_ratio(vit: VisionTransformer) -> int:
    """How many d x d chunks fc1 and fc2 of the plain `vit` have.

    Raises:
        ValueError: the MLP's width is no multiple of the embedding's.
    """
    hidden = mlp_width(vit.blocks[0])
    ratio, rest = divmod(hidden, vit.embed_dim)
    if rest:
        raise ValueError(
            f"this method cuts the MLP into chunks of {vit.embed_dim} features, and its width is {hidden}; "
            "use a backbone whose MLP ratio is a whole number"
        )
    return ratio


def _linear_init(outputs: int, inputs: int) -> Tensor:
    """As the weight of an `nn.Linear`."""
    return nn.init.kaiming_uniform_(torch.empty(outputs, inputs), a=math.sqrt(5))
