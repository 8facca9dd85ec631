"""RepAdapter (Luo et al., arXiv:2302.08106): a linear bottleneck between a LayerNorm and the map that reads it.

    h -> h + s (B drop(A h + a) + b),   A: [r, d], B: [d, r] block-diagonal with one block per group

Source: luogen1996/RepAdapter repadapter.py.  Linear adapters inserted by `adapt_input` merge into the following map.
"""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Method, Paper, method
from .blocks import Residual
from .updates import Update

NORMS: dict[str, tuple[str, ...]] = {"block": ("norm1", "norm2"), "attn": ("norm1",)}
"""The LayerNorms after which each value of `where` puts adapters."""

_READERS = {"norm1": "attn.qkv", "norm2": "mlp.fc1"}


def adapt_input(block: nn.Module, norm: str, update: Update) -> None:
    """Apply h -> h + update(h) between a LayerNorm and the linear map that reads it."""
    setattr(block, norm, nn.Sequential(block.get_submodule(norm), Residual(update)))


@torch.no_grad()
def merge_inputs(vit: VisionTransformer) -> None:
    """Undo `adapt_input` by merging into the linear maps: W (h + M h + c) + b = (W + W M) h + (b + W c)."""
    for block in vit.blocks:
        for norm, reader in _READERS.items():
            adapted = block.get_submodule(norm)
            if isinstance(adapted, nn.Sequential):
                plain, residual = adapted
                update = cast(Update, residual.adapter)
                linear = cast(nn.Linear, block.get_submodule(reader))
                if (shift := update.bias_delta()) is not None:
                    moved = linear.weight @ shift
                    bias = moved if linear.bias is None else linear.bias + moved
                    linear.bias = nn.Parameter(bias, requires_grad=False)
                linear.weight.add_(linear.weight @ update.delta())
                setattr(block, norm, plain)


class GroupedBottleneck(Update):
    """h -> s (B drop(A h + a) + b), where every group of outputs reads its own part of the bottleneck."""

    def __init__(self, d: int, bottleneck: int, groups: int, scale: float, dropout: float) -> None:
        super().__init__()
        if d % groups:
            raise ValueError(f"groups={groups} must divide the model's width {d}")
        self.groups, self.scale, self.dropout = groups, scale, nn.Dropout(dropout)
        self.down = nn.Linear(d, bottleneck)
        self.up, self.up_bias = nn.Parameter(torch.zeros(d, bottleneck // groups)), nn.Parameter(torch.zeros(d))
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def dense_up(self) -> Tensor:
        """Return the up-projection as a block-diagonal matrix [d, bottleneck]."""
        return torch.block_diag(*self.up.chunk(self.groups))

    def forward(self, h: Tensor) -> Tensor:  # [b, n, d]
        return F.linear(self.dropout(self.down(h)), self.dense_up(), self.up_bias) * self.scale

    def delta(self) -> Tensor:
        return self.dense_up() @ self.down.weight * self.scale

    def bias_delta(self) -> Tensor:
        return (self.dense_up() @ self.down.bias + self.up_bias) * self.scale


@method("repadapter")
class RepAdapter(Method):
    """Adds a linear bottleneck with a grouped up-projection to the inputs of attention and MLP."""

    bottleneck: PositiveInt = 8
    groups: PositiveInt = 2
    scale: float = 1.0
    """The middle of the paper's grid, and the median of its 19 VTAB configurations (configs/repblock)."""
    dropout: Rate = 0.1
    where: Literal["block", "attn"] = "block"
    """block: attention and MLP; attn: attention only."""
    title = "RepAdapter"
    paper = Paper("arXiv", 2023, "2302.08106", "luogen1996/RepAdapter")
    equation = r"W' = W (I + s B A),\quad b' = b + s W (B b_A + b_B)"
    targets = "inputs of qkv and fc1"
    evidence = "authors' training"
    search = {"scale": (0.1, 0.5, 1.0, 5.0, 10.0)}  # scripts/search_repblock.sh

    def validate(self) -> None:
        if self.bottleneck % self.groups:
            raise ValueError(f"groups={self.groups} must divide bottleneck={self.bottleneck}")

    def inject(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            for norm in NORMS[self.where]:
                update = GroupedBottleneck(vit.embed_dim, self.bottleneck, self.groups, self.scale, self.dropout)
                adapt_input(block, norm, update)

    def merge(self, vit: VisionTransformer) -> None:
        merge_inputs(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        d, r = vit.embed_dim, self.bottleneck
        return len(vit.blocks) * len(NORMS[self.where]) * (d * r + r + d * (r // self.groups) + d)
