"""SPT, sensitivity-aware tuning (He et al., ICCV 2023, arXiv:2303.08566): the training images select the parameters.

    W' = W + B A if |S n W| >= |B, A| / 10, else W'_ij is trained for ij in S

S is the set of the most sensitive entries of weights, biases and norms.  The sensitivity of an entry is its squared
gradient, summed over batches of training images.  A matrix with many entries in S stays frozen and gets a low-rank
module instead.  A vector with many entries in S is trained as a whole.  The class token is always trained; patch
embedding and positions never are (ziplab/SPT engine.py:92-300; modules: model/vision_transformer_timm.py:236-555).
The selection is in `sensitivity.py`.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of, final_norm, linear_biases
from .arguments import PositiveInt, Rate
from .base import Method, Paper, later, method
from .blocks import init_as_timm
from .initial_values import trunc_normal_
from .lora import DroppedLowRank
from .sensitivity import Piece, choose, squared_gradients
from .updates import ALL_SITES, UpdatedLinear, merge_linears, site_shapes

ALPHA, BETA = 10, 5
"""Thresholds for "many": 1/10 of a module's parameters, 1/5 of a vector (configs/*_sensitivity.sh, engine.py:104)."""

_TUNABLE = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
_PARTS = {"qkv": ("q", "k", "v"), "proj": ("o",), "fc1": ("fc1",), "fc2": ("fc2",)}


class ChosenEntries(nn.Module):
    """A linear map or LayerNorm with some trained entries."""

    index: Tensor

    def __init__(self, inner: nn.Linear | nn.LayerNorm, index: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("index", index)  # [k], into the concatenation of weight and bias
        self.values = nn.Parameter(_entries(inner).detach()[index])

    def tensors(self) -> list[Tensor]:
        """Return the weight and, if present, the bias."""
        flat = _entries(self.inner).to(self.values.dtype).scatter(0, self.index, self.values)
        own = list(self.inner.parameters())
        return [new.reshape(old.shape) for new, old in zip(flat.split([p.numel() for p in own]), own, strict=True)]

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        weight, bias = [*self.tensors(), None][:2]
        if isinstance(self.inner, nn.LayerNorm):
            return F.layer_norm(x, self.inner.normalized_shape, weight, bias, self.inner.eps)
        return F.linear(x, cast(Tensor, weight), bias)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Return the equivalent plain module."""
        for old, new in zip(self.inner.parameters(), self.tensors(), strict=True):
            old.copy_(new)
        return self.inner


class AdaptedLinear(nn.Module):
    """A linear map with an adapter after some of its parts: y -> y + adapter(y)."""

    def __init__(self, linear: nn.Module, parts: tuple[str, ...], adapters: dict[str, nn.Module]) -> None:
        super().__init__()
        self.linear, self.parts, self.adapters = linear, parts, nn.ModuleDict(adapters)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        pieces = list(self.linear(x).chunk(len(self.parts), dim=-1))
        for i, part in enumerate(self.parts):
            if part in self.adapters:  # the adapter of o reads the input of o: vision_transformer_timm.py:435-439
                pieces[i] = pieces[i] + self.adapters[part](x if part == "o" else pieces[i])
        return torch.cat(pieces, dim=-1)


@dataclass(frozen=True)
class _SPT(Method):
    budget: PositiveInt = 400_000
    """Number of trainable parameters, or all tunable ones if they are fewer."""
    rank: PositiveInt = 8
    dropout: Rate = 0.1
    """Dropout of the low-rank modules' inputs, except for o."""
    drop_path: Rate = 0.1
    """Drop path of the low-rank modules (vision_transformer_timm.py:285)."""
    start: Literal["zeros", "released"] = later(default="zeros")
    """Initial up-projection.  released: N(0, 0.02) for both projections, what training starts from, because the model
    initialises all linear maps again (vision_transformer_timm.py:1312,1374,1480-1482)."""
    paper = Paper("ICCV", 2023, "2303.08566", "ziplab/SPT")
    targets = "chosen by the training images"
    evidence = "authors' module"
    differs = (
        "Both projections start at N(0, 0.02) there, which `start='released'` does. Gradients are taken in train "
        "mode with drop-path there, and chosen entries of LayerNorms never learn."
    )
    version = 2  # version 1 used the first images in stored order
    search = {"budget": (200_000, 400_000, 600_000, 800_000, 1_000_000)}  # configs/vtab_supervised_spt_lora.sh

    @abstractmethod
    def module_params(self, inputs: int, outputs: int) -> int:
        """Return the number of parameters of a matrix's low-rank module."""

    @abstractmethod
    def module(self, weight: Tensor, dropout: float) -> nn.Module:
        """Create the low-rank module of a matrix [outputs, inputs]."""

    @abstractmethod
    def adapt_linear(self, linear: nn.Module, parts: tuple[str, ...], modules: dict[str, nn.Module]) -> nn.Module:
        """Return the linear map with low-rank modules on some of its parts."""

    def inject(self, vit: VisionTransformer) -> None:
        """Unfreeze the class token; `prepare` selects everything else."""
        if self.budget < _token_params(vit):
            raise ValueError(f"budget={self.budget} does not even cover the class token's {vit.embed_dim} parameters")
        if vit.cls_token is not None:
            vit.cls_token.requires_grad_(True)

    @torch.enable_grad()
    def prepare(self, vit: VisionTransformer, images: Tensor, labels: Tensor) -> None:
        """Select by sensitivity, and replace the affected modules."""
        vit.eval()  # no stochastic depth
        tunable = list(_tunable_modules(vit))
        modules = [cast(nn.Linear, getattr(parent, name)) for parent, name in tunable]
        pieces = [
            piece
            for i, (_, name) in enumerate(tunable)
            for piece in self._pieces(
                i, _matrices(modules[i], name), [t for t in modules[i].parameters() if t.ndim == 1]
            )
        ]
        sensitivity = squared_gradients(vit, [t for module in modules for t in module.parameters()], images, labels)
        as_whole, chosen = choose(sensitivity, pieces, self.budget - _token_params(vit))
        whole = {(piece.place, piece.part) for piece, yes in zip(pieces, as_whole.tolist(), strict=True) if yes}
        masks = chosen.split([len(_entries(module)) for module in modules])
        for i, ((parent, name), module, mask) in enumerate(zip(tunable, modules, masks, strict=True)):
            tuned = ChosenEntries(module, mask.nonzero().flatten()) if mask.any() else module
            made = {
                part: self.module(weight, 0.0 if part == "o" else self.dropout)
                for part, weight in _matrices(module, name).items()
                if (i, part) in whole
            }
            if made:
                tuned = self.adapt_linear(tuned, _PARTS[name], made).to(mask.device)
            setattr(parent, name, tuned)

    def _pieces(self, place: int, matrices: dict[str, Tensor], vectors: list[Tensor]) -> Iterator[Piece]:
        for part, weight in matrices.items():
            outputs, inputs = weight.shape
            params = self.module_params(inputs, outputs)
            if params > weight.numel():
                raise ValueError(f"rank={self.rank} makes {params} parameters of a matrix of {weight.numel()}")
            yield Piece(place, part, weight.numel(), params, -(-params // ALPHA))
        for vector in (piece for whole in vectors for piece in whole.chunk(len(matrices) or 1)):
            yield Piece(place, None, len(vector), len(vector), -(-len(vector) // BETA))

    def expected_params(self, vit: VisionTransformer) -> int:
        d = vit.embed_dim
        modules = sum(self.module_params(*shape) for shape in site_shapes(vit, ALL_SITES))
        vectors = sum(4 * d + linear_biases(ref) for ref in blocks_of(vit)) + 2 * d  # biases and LayerNorms
        return min(self.budget, modules + vectors + _token_params(vit))


@method("spt_lora")
class SPTLoRA(_SPT):
    """Trains the weights most sensitive to the training images, and LoRA on matrices that have many of them."""

    title = "SPT-LoRA"
    equation = r"W' = W + B A \text{ if } |S \cap W| \ge |B, A| / 10, \text{ else } W'_{ij} = w_{ij},\ ij \in S"

    def module_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs)

    def module(self, weight: Tensor, dropout: float) -> nn.Module:
        update = DroppedLowRank(weight, self.rank, 1.0, dropout, self.drop_path)
        if self.start == "released":
            for factor in (update.a, update.b):
                trunc_normal_(factor)
        return update

    def adapt_linear(self, linear: nn.Module, parts: tuple[str, ...], modules: dict[str, nn.Module]) -> nn.Module:
        return UpdatedLinear(cast(nn.Linear, linear), parts, modules)

    def merge(self, vit: VisionTransformer) -> None:
        for name, module in list(vit.named_modules()):
            if isinstance(module, ChosenEntries):
                vit.set_submodule(name, module.merged())
        merge_linears(vit)


@method("spt_adapter")
class SPTAdapter(_SPT):
    """Trains the weights most sensitive to the training images, and adapters on matrices that have many of them."""

    title = "SPT-Adapter"
    equation = r"y \leftarrow y + A(y) \text{ if } |S \cap W| \ge |A| / 10, \text{ else } W'_{ij} = w_{ij},\ ij \in S"

    def module_params(self, inputs: int, outputs: int) -> int:
        return 2 * outputs * self.rank + self.rank + outputs

    def module(self, weight: Tensor, dropout: float) -> nn.Module:
        down, up = nn.Linear(len(weight), self.rank), nn.Linear(self.rank, len(weight))  # down: PyTorch's default
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        if self.start == "released":
            init_as_timm(down)
            init_as_timm(up)
        return nn.Sequential(nn.Dropout(dropout), down, nn.GELU(), up, DropPath(self.drop_path))

    def adapt_linear(self, linear: nn.Module, parts: tuple[str, ...], modules: dict[str, nn.Module]) -> nn.Module:
        return AdaptedLinear(linear, parts, modules)


def _tunable_modules(vit: VisionTransformer) -> Iterator[tuple[nn.Module, str]]:
    """Yield parent and name of every module that can be selected."""
    for block in vit.blocks:
        for path in _TUNABLE:
            parent, _, name = path.rpartition(".")
            yield block.get_submodule(parent), name
    yield vit, final_norm(vit)


def _matrices(module: nn.Linear, name: str) -> dict[str, Tensor]:
    parts = _PARTS.get(name, ())
    return dict(zip(parts, module.weight.chunk(len(parts)), strict=True)) if parts else {}


def _entries(module: nn.Linear | nn.LayerNorm) -> Tensor:
    """Return weight and bias as one vector."""
    return torch.cat([tensor.flatten() for tensor in module.parameters()])


def _token_params(vit: VisionTransformer) -> int:
    return 0 if vit.cls_token is None else vit.embed_dim
