"""APLA, attention projection layer adaptation (Sorkhei et al., 2025, arXiv:2503.11335).

Random rows of each block's `attn.proj`, with their biases, learn (MoeinSorkhei/APLA src/apla/appla_attn.py:10-83).
"""

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register, require_positive
from .updates import Transform, merge_linears, transform_linears


class RandomRows(Transform):
    """W, b -> the same with learned copies of some rows in their place."""

    index: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, rank: int) -> None:  # [outputs, inputs] and [outputs]
        super().__init__()
        if rank > len(weight):
            raise ValueError(f"rank {rank} exceeds the {len(weight)} rows of attn.proj")
        self.register_buffer("index", torch.randperm(len(weight))[:rank])
        self.rows = nn.Parameter(weight[self.index])
        self.bias = None if bias is None else nn.Parameter(bias[self.index])

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        # Cast to what the frozen rows are stored in; in bf16 that rounds no more than autocast would
        if bias is not None and self.bias is not None:
            bias = bias.index_copy(0, self.index, self.bias.type_as(bias))
        return weight.index_copy(0, self.index, self.rows.type_as(weight)), bias


@register("apla")
@dataclass(frozen=True)
class APLA(Method):
    """A random subset of the rows of every attention output projection learns, nothing else."""

    rank: int = 8
    """Rows per block."""
    title = "APLA"
    paper = Paper("arXiv", 2025, "2503.11335", "MoeinSorkhei/APLA")
    equation = r"y_i = w_i x + b_i, \quad (w_i, b_i) \text{ learned for } i \in I, \; |I| = r"
    places = "o"
    evidence = "golden"
    search = {"rank": (8, 32, 128)}

    def __post_init__(self) -> None:
        require_positive(rank=self.rank)

    def inject(self, vit: VisionTransformer) -> None:
        transform_linears(vit, "o", lambda weight, bias: RandomRows(weight, bias, self.rank))

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * self.rank * (vit.embed_dim + 1)
