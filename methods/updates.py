"""The linear maps of a ViT block by name, and additive updates of them.

`q`, `k`, `v` are the three row blocks of timm's fused `attn.qkv`, `o` is `attn.proj`, `fc1` and `fc2` the MLP.
An update is a module with `forward(x)` and `delta()`, the dense matrix [out, in] that does the same.
"""

import re
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

SITES = ("q", "k", "v", "o", "fc1", "fc2")

_LINEARS = (
    ("attn", "qkv", ("q", "k", "v")),
    ("attn", "proj", ("o",)),
    ("mlp", "fc1", ("fc1",)),
    ("mlp", "fc2", ("fc2",)),
)


class Update(Protocol):
    def __call__(self, x: Tensor) -> Tensor: ...
    def delta(self) -> Tensor: ...


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


class UpdatedLinear(nn.Module):
    """y = W x + b, and on the rows of each named part an update of the same input is added."""

    def __init__(self, linear: nn.Linear, parts: tuple[str, ...], updates: dict[str, nn.Module]) -> None:
        super().__init__()
        self.linear, self.parts, self.updates = linear, parts, nn.ModuleDict(updates)

    def forward(self, x: Tensor) -> Tensor:  # x: [b, n, in]
        pieces = self.linear(x).chunk(len(self.parts), dim=-1)
        updated = [
            piece + self.updates[part](x) if part in self.updates else piece
            for part, piece in zip(self.parts, pieces, strict=True)
        ]
        return updated[0] if len(updated) == 1 else torch.cat(updated, dim=-1)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain linear that computes the same."""
        rows = self.linear.weight.chunk(len(self.parts))
        for part, block in zip(self.parts, rows, strict=True):
            if part in self.updates:
                block += cast(Update, self.updates[part]).delta()
        return self.linear


def update_linears(vit: VisionTransformer, sites: str, make: Callable[[int, int], nn.Module]) -> None:
    """Add `make(inputs, outputs)` to every linear map that `sites` names, in every block."""
    wanted = parse_sites(sites)
    for block in vit.blocks:
        for parent_name, name, parts in _LINEARS:
            chosen = [part for part in parts if part in wanted]
            if chosen:
                parent = block.get_submodule(parent_name)
                linear = cast(nn.Linear, getattr(parent, name))
                outputs = linear.out_features // len(parts)
                updates = {part: make(linear.in_features, outputs) for part in chosen}
                setattr(parent, name, UpdatedLinear(linear, parts, updates))


def merge_linears(vit: VisionTransformer) -> None:
    """Fold all updates into the linears they were added to."""
    for block in vit.blocks:
        for parent_name, name, _ in _LINEARS:
            parent = block.get_submodule(parent_name)
            if isinstance(updated := getattr(parent, name), UpdatedLinear):
                setattr(parent, name, updated.merged())


def site_shapes(vit: VisionTransformer, sites: str) -> Iterator[tuple[int, int]]:
    """(inputs, outputs) of every linear map that `sites` names, over all blocks of the plain `vit`."""
    d, hidden = vit.embed_dim, cast(nn.Linear, vit.blocks[0].get_submodule("mlp.fc1")).out_features
    shapes = {"fc1": (d, hidden), "fc2": (hidden, d)}
    for _ in vit.blocks:
        for site in parse_sites(sites):
            yield shapes.get(site, (d, d))
