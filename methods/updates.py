"""The linear maps of a ViT block by name, and a base class of methods that modify only these maps.

`q`, `k`, `v` are the three row blocks of timm's fused `attn.qkv`, `o` is `attn.proj`, `fc1` and `fc2` are the MLP.
An `Update` is added to the output of such a map.  A `Transform` computes new weights from the pretrained ones.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of, mlp_hidden, mlp_width
from .base import Method

SITES = ("q", "k", "v", "o", "fc1", "fc2")
ALL_SITES = ",".join(SITES)

_LINEARS = (
    ("attn", "qkv", ("q", "k", "v")),
    ("attn", "proj", ("o",)),
    ("mlp", "fc1", ("fc1",)),
    ("mlp", "fc2", ("fc2",)),
)
"""Parent module, name and parts of each linear map of a block."""


class Update(nn.Module, ABC):
    """An addition to a linear map: forward(x: [b, n, in]) -> [b, n, out]."""

    @abstractmethod
    def delta(self) -> Tensor:
        """Return the equivalent change of the weight, [out, in]."""

    def bias_delta(self) -> Tensor | None:
        """Return the equivalent change of the bias, [out], or None."""
        return None


class LowRankUpdate(Update):
    """An update of two factors, x -> up (down x).

    Updates of one linear map are computed together unless a subclass overrides `forward`.
    """

    @abstractmethod
    def down_and_up(self) -> tuple[Tensor, Tensor]:
        """Return the two factors, [rank, in] and [out, rank], including any scale."""

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


def parse_sites(sites: str, fused: bool = False) -> tuple[str, ...]:
    """Split `"qv"` or `"q,v,fc1"` into names in the order of `SITES`.

    fused: treat `attn.qkv` as one linear map, so that `"qkv,fc1"` becomes ("qkv", "fc1").

    Raises:
        ValueError: unknown or repeated names, no name, or, if fused, only some of q, k and v.
    """
    names = re.findall(r"fc1|fc2|[qkvo]", sites)
    if "".join(names) != sites.replace(",", "").replace(" ", "") or not names or len(set(names)) < len(names):
        raise ValueError(
            f"sites={sites!r} must name each of {', '.join(SITES)} at most once, such as 'qv' or 'q,v,fc1'"
        )
    if not fused:
        return tuple(site for site in SITES if site in names)
    if 0 < len({"q", "k", "v"} & set(names)) < 3:
        raise ValueError(f"sites={sites!r} must name q, k and v together or not at all: here they are one linear map")
    return tuple("".join(parts) for *_, parts in _LINEARS if set(parts) <= set(names))


class UpdatedLinear(nn.Module):
    """y = W x + b, plus an update of the same input on the rows of each named part."""

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
        """Compute all updates as one: stack the down-projections, and put the up-projections on a block diagonal."""
        x = x.to(self.linear.weight.dtype)  # one cast; autocast would cast for each product
        factors = {part: cast(LowRankUpdate, update).down_and_up() for part, update in self.updates.items()}
        downs, ups = zip(*factors.values(), strict=True)
        nothing = ups[0].new_zeros(self.linear.out_features // len(self.parts), 0)
        up = torch.block_diag(*(factors[part][1] if part in factors else nothing for part in self.parts))
        y, z = self.linear(x), F.linear(x, torch.cat(downs))
        return torch.addmm(y.flatten(0, -2), z.flatten(0, -2), up.T).view(y.shape)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the equivalent plain linear map, with a new bias if an update needs one."""
        if isinstance(self.linear, UpdatedLinear | TransformedLinear):  # of an earlier method in a combination
            self.linear = self.linear.merged()
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
    """y = W' x + b', where each named part of (W', b') is the transform of that part of (W, b)."""

    def __init__(self, linear: nn.Linear, parts: tuple[str, ...], transforms: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.linear, self.parts, self.transforms = linear, parts, nn.ModuleDict(transforms)

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """Return the transformed weight [out, in] and bias [out]."""
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
        """Return the equivalent plain linear map."""
        weight, bias = self.weights()
        self.linear.weight.copy_(weight)
        if bias is not None:
            self.linear.bias.copy_(bias)
        return self.linear


MakeUpdate = Callable[[Tensor, Tensor | None], Update | Transform]
"""Creates the module of one site from its pretrained weight [out, in] and bias [out]."""


def update_linears(vit: VisionTransformer, sites: str, make: MakeUpdate, fused: bool = False) -> None:
    """Apply `make(weight, bias)` to every linear map that `sites` names, in every block.

    fused: treat `attn.qkv` as one linear map, see `parse_sites`.
    """
    wanted = parse_sites(sites, fused)
    for ref in blocks_of(vit):
        for parent_name, name, parts in _LINEARS:
            parts = ("".join(parts),) if fused else parts
            if not {*parts} & {*wanted}:
                continue  # another method of a combination may have replaced this map
            parent = ref.block.get_submodule(parent_name)
            linear = cast(nn.Linear, getattr(parent, name))
            made = {part: make(*rows) for part, rows in _rows(linear, parts).items() if part in wanted}
            transforms = any(isinstance(module, Transform) for module in made.values())
            setattr(parent, name, (TransformedLinear if transforms else UpdatedLinear)(linear, parts, made))


def merge_linears(vit: VisionTransformer) -> None:
    """Fold all updates and transforms into their linear maps."""
    for ref in blocks_of(vit):
        for parent_name, name, _ in _LINEARS:
            parent = ref.block.get_submodule(parent_name)
            if isinstance(wrapped := getattr(parent, name), UpdatedLinear | TransformedLinear):
                setattr(parent, name, wrapped.merged())


def _rows(linear: nn.Linear, parts: tuple[str, ...]) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return views of weight [out, in] and bias [out] of each part."""
    weights = linear.weight.chunk(len(parts))
    biases = [None] * len(parts) if linear.bias is None else linear.bias.chunk(len(parts))
    return dict(zip(parts, zip(weights, biases, strict=True), strict=True))


def site_shapes(vit: VisionTransformer, sites: str, fused: bool = False) -> Iterator[tuple[int, int]]:
    """Yield (inputs, outputs) of every linear map that `sites` names, over all blocks of the unmodified `vit`.

    fused: treat `attn.qkv` as one linear map, see `parse_sites`.
    """
    for ref in blocks_of(vit):
        d = ref.width
        shapes = {"qkv": (d, 3 * d), "fc1": (d, mlp_width(ref.block)), "fc2": (mlp_hidden(ref.block), d)}
        for name in parse_sites(sites, fused):
            yield shapes.get(name, (d, d))


def lacks_bias(vit: VisionTransformer, sites: str) -> bool:
    """Return True if a linear map that `sites` names has no bias in the unmodified `vit`."""
    wanted = parse_sites(sites)
    return any(
        getattr(ref.block.get_submodule(parent), name).bias is None
        for ref in blocks_of(vit)
        for parent, name, parts in _LINEARS
        if {*parts} & {*wanted}
    )


class LinearUpdateMethod(Method):
    """Base class of methods that modify only linear maps, so that training can be merged into the plain model.

    A subclass defines `sites`, as a field or a constant, and `make_update`.
    """

    sites: str
    """The modified linear maps, see `parse_sites`."""
    fused: ClassVar[bool] = False
    """True if query, key and value are updated as one linear map."""

    def validate(self) -> None:
        if not hasattr(self, "sites"):
            raise ValueError(f'{type(self).__name__} has no `sites`; add a field such as `sites: str = "qv"`')
        parse_sites(self.sites, self.fused)

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update | Transform:
        """Create the module for one pretrained map with weight [out, in] and bias [out]."""
        raise NotImplementedError(f"{type(self).__name__} must define make_update(weight, bias)")

    def update_params(self, inputs: int, outputs: int) -> int:
        """Return the number of parameters in one update; by default, those of a created one are counted."""
        with torch.device("meta"):
            made = self.make_update(torch.empty(outputs, inputs), torch.empty(outputs))
        return sum(parameter.numel() for parameter in made.parameters())

    def inject(self, vit: VisionTransformer) -> None:
        update_linears(vit, self.sites, self.make_update, self.fused)

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.update_params(*shape) for shape in site_shapes(vit, self.sites, self.fused))
