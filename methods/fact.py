"""FacT, factor tuning (Jie and Deng, AAAI 2023, arXiv:2212.03145): one factorised tensor holds all updates.

Linear maps are cut into d x d chunks: q, k, v and o are one chunk each, fc1 and fc2 a stack of chunks.  All chunks
share U: [r, d] and V: [d, r], and have a core S: [r, r]:

    dW = s V S U.

In the tensor-train form each S is a parameter.  In the Tucker form each is a mixture of the slices of one core tensor.
"""

import math
from abc import abstractmethod
from itertools import accumulate

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import mlp_hidden, mlp_width
from .arguments import PositiveInt, Rate
from .base import Paper, method
from .updates import ALL_SITES, LinearUpdateMethod, Update, site_shapes, update_linears


class Shared(nn.Module):
    """The factors shared by all layers: U [r, d] and V [d, r], which is initially zero."""

    def __init__(self, rank: int, d: int) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(_linear_init(rank, d)), nn.Parameter(torch.zeros(d, rank))


class SharedCore(Shared):
    """The shared factors of the Tucker form, with the core C [r, r, r] and P [r, chunks of all layers]."""

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
        """Return S of all chunks of the map, [chunks out * r, chunks in * r]."""

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
    """The update whose core S is a parameter."""

    def __init__(self, weight: Tensor, shared: Shared, scale: float, dropout: float) -> None:
        super().__init__(shared, scale, dropout)
        rank, d = shared.u.shape
        self.s = nn.Parameter(_linear_init(*(features // d * rank for features in weight.shape)))

    def core(self) -> Tensor:
        return self.s


class Tucker(FactorUpdate):
    """The update whose core S is C times some columns of P, one per chunk."""

    shared: SharedCore
    columns: slice

    def __init__(self, weight: Tensor, shared: SharedCore, first: int, scale: float, dropout: float) -> None:
        super().__init__(shared, scale, dropout)
        outputs, inputs = weight.shape
        self.columns = slice(first, first + weight.numel() // shared.u.shape[1] ** 2)
        self.reads_chunks = inputs > outputs

    def core(self) -> Tensor:
        # Flattened as released (FacT/fact_tk.py:88-104), which interleaves rank and chunk: column b * chunks + k holds
        # rank index b of P's column k, so that every chunk of fc1 and fc2 mixes all their columns.
        flat = (self.shared.c @ self.shared.p[:, self.columns]).flatten(1)  # [r, r * chunks]
        return flat if self.reads_chunks else flat.T


@method("fact_tt")
class FacTTensorTrain(LinearUpdateMethod):
    """Factorises all updates into two shared projections and a small trainable core for each map."""

    rank: PositiveInt = 16
    scale: float = 1.0
    """Ours; the released configurations set 0.01 to 100 per task, with a median of 10."""
    dropout: Rate = 0.1
    title = "FacT-TT"
    paper = Paper("AAAI", 2023, "2212.03145", "JieShibo/PETL-ViT")
    equation = r"W' = W + s\,V \Sigma_{l,m} U"
    targets = "q, k, v, o, fc1, fc2"
    evidence = "authors' training"
    differs = "The released configurations tune the scale per task, with a median of 10; `tune` covers it."
    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0)}
    sites = ALL_SITES

    def validate_backbone(self, vit: VisionTransformer) -> None:
        mlp_ratio(vit)

    def inject(self, vit: VisionTransformer) -> None:
        shared = Shared(self.rank, vit.embed_dim)
        update_linears(vit, self.sites, lambda weight, _: TensorTrain(weight, shared, self.scale, self.dropout))

    def expected_params(self, vit: VisionTransformer) -> int:
        return 2 * vit.embed_dim * self.rank + _chunks(vit) * self.rank**2


@method("fact_tk")
class FacTTucker(FacTTensorTrain):
    """Factorises all updates into two shared projections and cores that are mixtures of one tensor's slices."""

    rank: PositiveInt = 32
    title = "FacT-TK"
    evidence = "authors' training"
    equation = r"W' = W + s\,V (C \times_3 p_{l,m}) U"

    def inject(self, vit: VisionTransformer) -> None:
        d = vit.embed_dim
        shapes = site_shapes(vit, self.sites)  # in the order of `update_linears`
        firsts = accumulate((inputs * outputs // d**2 for inputs, outputs in shapes), initial=0)
        shared = SharedCore(self.rank, d, _chunks(vit))
        update_linears(
            vit, self.sites, lambda weight, _: Tucker(weight, shared, next(firsts), self.scale, self.dropout)
        )

    def expected_params(self, vit: VisionTransformer) -> int:
        return 2 * vit.embed_dim * self.rank + self.rank * _chunks(vit) + self.rank**3


def _chunks(vit: VisionTransformer) -> int:
    """Return the number of d x d chunks in all linear maps of the unmodified `vit`."""
    return len(vit.blocks) * (4 + 2 * mlp_ratio(vit))


def mlp_ratio(vit: VisionTransformer) -> int:
    """Return the number of d x d chunks in fc1, and in fc2, of the unmodified `vit`.

    Raises:
        ValueError: the MLP is gated, or its width is not a multiple of the embedding dimension.
    """
    hidden = mlp_width(vit.blocks[0])
    if mlp_hidden(vit.blocks[0]) != hidden:
        raise ValueError("this method cuts the maps of the MLP into equal chunks, and this MLP is gated (SwiGLU)")
    ratio, rest = divmod(hidden, vit.embed_dim)
    if rest:
        raise ValueError(
            f"this method cuts the MLP into chunks of {vit.embed_dim} features, and its width is {hidden}; "
            "use a backbone whose MLP ratio is a whole number"
        )
    return ratio


def _linear_init(outputs: int, inputs: int) -> Tensor:
    """Return a tensor [outputs, inputs] with the initialisation of an `nn.Linear` weight."""
    return nn.init.kaiming_uniform_(torch.empty(outputs, inputs), a=math.sqrt(5))
