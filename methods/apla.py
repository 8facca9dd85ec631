"""APLA, attention projection layer adaptation (Sorkhei et al., 2025, arXiv:2503.11335).

    y_i = w_i x + b_i, with (w_i, b_i) trained for a random subset of rows i of each block's `attn.proj`

Source: MoeinSorkhei/APLA src/apla/appla_attn.py:10-83.
"""

import torch
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Paper, method
from .updates import LinearUpdateMethod, Transform


class RandomRows(Transform):
    """W, b -> the same, with trained copies of some rows."""

    index: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, rank: int) -> None:  # [outputs, inputs] and [outputs]
        super().__init__()
        if rank > len(weight):
            raise ValueError(f"rank {rank} exceeds the {len(weight)} rows of attn.proj")
        self.register_buffer("index", torch.randperm(len(weight))[:rank])
        self.rows = nn.Parameter(weight[self.index])
        self.bias = None if bias is None else nn.Parameter(bias[self.index])

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        # Cast to the dtype of the frozen rows; in bf16 that rounds no more than autocast would
        if bias is not None and self.bias is not None:
            bias = bias.index_copy(0, self.index, self.bias.type_as(bias))
        return weight.index_copy(0, self.index, self.rows.type_as(weight)), bias


@method("apla")
class APLA(LinearUpdateMethod):
    """Trains a random subset of the rows of every attention output projection."""

    rank: PositiveInt = 8
    """Trained rows per block."""
    title = "APLA"
    paper = Paper("arXiv", 2025, "2503.11335", "MoeinSorkhei/APLA")
    equation = r"y_i = w_i x + b_i, \quad (w_i, b_i) \text{ learned for } i \in I, \; |I| = r"
    targets = "o"
    evidence = "authors' training"
    search = {"rank": (8, 32, 128)}
    sites = "o"

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Transform:
        return RandomRows(weight, bias, self.rank)

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + 1)
