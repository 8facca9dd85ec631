"""The linear maps of a ViT block by name, and what methods do to them.

`q`, `k`, `v` are the three row blocks of timm's fused `attn.qkv`, `o` is `attn.proj`, `fc1` and `fc2` the MLP.
An `Update` is added to such a map and works on activations; a `Transform` makes new weights of the old ones.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of, mlp_width

SITES = ("q", "k", "v", "o", "fc1", "fc2")

_LINEARS = (
    ("attn", "qkv", ("q", "k", "v")),
    ("attn", "proj", ("o",)),
    ("mlp", "fc1", ("fc1",)),
    ("mlp", "fc2", ("fc2",)),
)


class Update(nn.Module, ABC):
    """An addition to a linear map: forward(x: [b, n, in]) -> [b, n, out]."""

    @abstractmethod
    def delta(self) -> Tensor:
        """[out, in], the weight that does the same."""

    def bias_delta(self) -> Tensor | None:
        """[out], or None when the bias stays."""
        return None


class LowRankUpdate(Update):
    """x -> up (down x).  Those of one linear map are computed together, unless a class overrides `forward`."""

    @abstractmethod
    def down_and_up(self) -> tuple[Tensor, Tensor]:
        """[rank, in] and [out, rank], scaled."""

    def forward(self, x: Tensor) -> Tensor:
        down, up = self.down_and_up()
        return F.linear(F.linear(x, down), up)

    def delta(self) -> Tensor:
        down, up = self.down_and_up()
        return up @ down


class Transform(nn.Module, ABC):
    """New weights from pretrained ones: forward(weight: [out, in], bias: [out]) -> the same shapes."""

    @abstractmethod
    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]: ...


def parse_sites(sites: str) -> tuple[str, ...]:
    """`"qv"`, `"q,v,fc1"` -> names in the order of `SITES`.

    Raises:
        ValueError: something else than the names in `SITES`, or one of them twice, or none.
    """
    names = re.findall(r"fc1|fc2|[qkvo]", sites)
    if "".join(names) != sites.replace(",", "").replace(" ", "") or not names or len(set(names)) < len(names):
        raise ValueError(
            f"sites={sites!r} must name each of {', '.join(SITES)} at most once, such as 'qv' or 'q,v,fc1'"
        )
    return tuple(site for site in SITES if site in names)


def parse_linears(sites: str, whole: bool) -> tuple[str, ...]:
    """The same; `whole`: with `attn.qkv` as the one linear map it is, `"qkv,fc1"` -> ("qkv", "fc1").

    Raises:
        ValueError: as `parse_sites`; or, where `attn.qkv` is whole, some of q, k and v without the others.
    """
    named = parse_sites(sites)
    if not whole:
        return named
    if 0 < len({"q", "k", "v"} & set(named)) < 3:
        raise ValueError(f"sites={sites!r} must name q, k and v together or not at all: here they are one linear map")
    return tuple("".join(parts) for *_, parts in _LINEARS if set(parts) <= set(named))


class UpdatedLinear(nn.Module):
    """y = W x + b, and on the rows of each named part an update of the same input is added."""

    def __init__(self, linear: nn.Linear, parts: tuple[str, ...], updates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.linear, self.parts, self.updates = linear, parts, nn.ModuleDict(updates)

    def forward(self, x: Tensor) -> Tensor:  # x: [b, n, in]
        if all(_is_two_products(update) for update in self.updates.values()):
            return self._with_low_rank(x)
        pieces = self.linear(x).chunk(len(self.parts), dim=-1)
        updated = [
            piece + self.updates[part](x) if part in self.updates else piece
            for part, piece in zip(self.parts, pieces, strict=True)
        ]
        return updated[0] if len(updated) == 1 else torch.cat(updated, dim=-1)

    def _with_low_rank(self, x: Tensor) -> Tensor:
        """All updates as one of the sum of their ranks: what maps down side by side, what maps up on a diagonal."""
        x = x.to(self.linear.weight.dtype)  # once, where autocast would do so for each product
        factors = {part: cast(LowRankUpdate, update).down_and_up() for part, update in self.updates.items()}
        downs, ups = zip(*factors.values(), strict=True)
        nothing = ups[0].new_zeros(self.linear.out_features // len(self.parts), 0)
        up = torch.block_diag(*(factors[part][1] if part in factors else nothing for part in self.parts))
        y, z = self.linear(x), F.linear(x, torch.cat(downs))
        return torch.addmm(y.flatten(0, -2), z.flatten(0, -2), up.T).view(y.shape)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain linear that computes the same; it gets a bias if it had none and an update adds one."""
        shifts = {part: cast(Update, update).bias_delta() for part, update in self.updates.items()}
        if self.linear.bias is None and any(shift is not None for shift in shifts.values()):
            self.linear.bias = nn.Parameter(self.linear.weight.new_zeros(self.linear.out_features), requires_grad=False)
        for part, (weight, bias) in _rows(self.linear, self.parts).items():
            if part in self.updates:
                weight += cast(Update, self.updates[part]).delta()
                if bias is not None and (shift := shifts[part]) is not None:
                    bias += shift
        return self.linear


def _is_two_products(update: nn.Module) -> bool:
    return isinstance(update, LowRankUpdate) and getattr(update.forward, "__func__", None) is LowRankUpdate.forward


class TransformedLinear(nn.Module):
    """y = W' x + b', where on the rows of each named part (W', b') is the transform of (W, b)."""

    def __init__(self, linear: nn.Linear, parts: tuple[str, ...], transforms: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.linear, self.parts, self.transforms = linear, parts, nn.ModuleDict(transforms)

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """[out, in] and [out]: what the transforms make of the whole linear map."""
        weights, biases = [], []
        for part, (weight, bias) in _rows(self.linear, self.parts).items():
            if part in self.transforms:
                weight, bias = self.transforms[part](weight, bias)
            weights.append(weight)
            biases.append(bias)
        if len(weights) == 1:
            return weights[0], biases[0]
        return torch.cat(weights), None if self.linear.bias is None else torch.cat(biases)

    def forward(self, x: Tensor) -> Tensor:  # x: [b, n, in]
        return F.linear(x, *self.weights())

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain linear that computes the same."""
        weight, bias = self.weights()
        self.linear.weight.copy_(weight)
        if bias is not None:
            self.linear.bias.copy_(bias)
        return self.linear


Make = Callable[[Tensor, Tensor | None], nn.Module]
"""From the pretrained rows of one site, weight [out, in] and bias [out], to what goes there."""


def update_linears(vit: VisionTransformer, sites: str, make: Make) -> None:
    """Add `make(weight, bias)`, an `Update`, to every linear map that `sites` names, in every block."""
    _wrap_linears(vit, parse_sites(sites), make, UpdatedLinear)


def transform_linears(vit: VisionTransformer, sites: str, make: Make, whole: bool = False) -> None:
    """Pass every linear map that `sites` names through `make(weight, bias)`, a `Transform`, in every block.

    whole: as for `parse_linears`.
    """
    _wrap_linears(vit, parse_linears(sites, whole), make, TransformedLinear)


def merge_linears(vit: VisionTransformer) -> None:
    """Fold all updates and transforms into the linears they were put on."""
    for place in blocks_of(vit):
        for parent_name, name, _ in _LINEARS:
            parent = place.block.get_submodule(parent_name)
            if isinstance(wrapped := getattr(parent, name), UpdatedLinear | TransformedLinear):
                setattr(parent, name, wrapped.merged())


def _wrap_linears(
    vit: VisionTransformer, wanted: tuple[str, ...], make: Make, wrapper: type[UpdatedLinear] | type[TransformedLinear]
) -> None:
    for place in blocks_of(vit):
        for parent_name, name, parts in _LINEARS:
            parent = place.block.get_submodule(parent_name)
            linear = cast(nn.Linear, getattr(parent, name))
            parts = (whole,) if (whole := "".join(parts)) in wanted else parts
            made = {part: make(*rows) for part, rows in _rows(linear, parts).items() if part in wanted}
            if made:
                setattr(parent, name, wrapper(linear, parts, made))


def _rows(linear: nn.Linear, parts: tuple[str, ...]) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Views of weight [out, in] and bias [out] of each part."""
    weights = linear.weight.chunk(len(parts))
    biases = [None] * len(parts) if linear.bias is None else linear.bias.chunk(len(parts))
    return dict(zip(parts, zip(weights, biases, strict=True), strict=True))


def site_shapes(vit: VisionTransformer, sites: str, whole: bool = False) -> Iterator[tuple[int, int]]:
    """(inputs, outputs) of every linear map that `sites` names, over all blocks of the plain `vit`.

    whole: as for `parse_linears`.
    """
    for place in blocks_of(vit):
        d, hidden = place.width, mlp_width(place.block)
        shapes = {"qkv": (d, 3 * d), "fc1": (d, hidden), "fc2": (hidden, d)}
        for name in parse_linears(sites, whole):
            yield shapes.get(name, (d, d))
