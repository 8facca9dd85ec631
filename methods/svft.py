"""SVFT (Lingam et al., NeurIPS 2024, arXiv:2405.19597): a sparse update between the singular vectors of each weight.

    W' = W + U (sigmoid(gate) M) V^T,   W = U S V^T,   M banded

Without off-diagonals M scales single directions (SVFT-plain).  The release computes W itself from its singular value
decomposition; here the exact W is kept (VijayLingam95/SVFT svft/svft_layers.py:59-202).  The signs of singular vectors
are free, so they are chosen such that the largest entry of each left vector is positive.
"""

import math

import torch
from torch import Tensor, nn

from .base import Paper, method
from .updates import LinearUpdateMethod, Transform


class SingularUpdate(Transform):
    """W -> W + U (sigmoid(gate) M) V^T, where M has the entries within `off_diagonals` of the diagonal."""

    u: Tensor
    v: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, weight: Tensor, off_diagonals: int) -> None:  # weight: [outputs, inputs]
        super().__init__()
        u, _, v = torch.linalg.svd(weight.detach(), full_matrices=False)  # [outputs, n], [n], [n, inputs]
        signs = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
        n = len(v)
        rows, columns = ((torch.arange(n)[:, None] - torch.arange(n)).abs() <= off_diagonals).nonzero(as_tuple=True)
        for name, tensor in {"u": u * signs, "v": v * signs.T, "rows": rows, "columns": columns}.items():
            self.register_buffer(name, tensor, persistent=False)
        self.entries = nn.Parameter(torch.randn(len(rows)) * math.sqrt(2 / len(rows)))
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        n, entries = len(self.v), self.gate.sigmoid() * self.entries
        middle = entries.new_zeros(n, n).index_put((self.rows, self.columns), entries)
        return weight + self.u @ (middle @ self.v), bias


@method("svft")
class SVFT(LinearUpdateMethod):
    """Trains entries on and near the diagonal between the singular vectors of each weight."""

    off_diagonals: int = 0
    """Trained diagonals on either side of the main one; 0 is SVFT-plain."""
    sites: str = "qv"
    title = "SVFT"
    paper = Paper("NeurIPS", 2024, "2405.19597", "VijayLingam95/SVFT")
    equation = r"W' = W + U\,\sigma(g) M\,V^\top,\ W = U S V^\top,\ M \text{ banded}"
    targets = "q, v"
    evidence = "authors' module"
    differs = "The exact weight is kept; the release multiplies its rounded singular value decomposition."
    search = {"off_diagonals": (0, 2, 4, 8)}  # vision_experiments/run_vit_base.sh
    starts_as_identity = False  # entries are initially normal
    backbones = ("vit", "swin")

    def validate(self) -> None:
        super().validate()
        if self.off_diagonals < 0:
            raise ValueError(f"off_diagonals must be at least 0, not {self.off_diagonals}")

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Transform:
        return SingularUpdate(weight, self.off_diagonals)

    def update_params(self, inputs: int, outputs: int) -> int:
        n = min(inputs, outputs)
        k = min(self.off_diagonals, n - 1)
        return n * (2 * k + 1) - k * (k + 1) + 1
