"""PiSSA (Meng et al., NeurIPS 2024, arXiv:2404.02948): LoRA initialised with a weight's principal singular triplets.

W' = W + s (B A - B_0 A_0),   s B_0 A_0 = U_r S_r V_r^T,   s = alpha / rank
"""

import torch
from torch import Tensor

from .base import Paper, method
from .lora import LoRA, LowRank
from .updates import Update


class Principal(LowRank):
    """x -> scale * (B A - B_0 A_0) x, where scale * B_0 A_0 is the best approximation of W with this rank.

    PiSSA freezes the residual W - scale * B_0 A_0.  Subtracting the product here keeps the pretrained weight unchanged.
    """

    a0: Tensor
    b0: Tensor

    @torch.no_grad()
    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:  # weight: [outputs, inputs]
        super().__init__(weight, rank, scale)
        if rank > min(weight.shape):
            raise ValueError(f"rank={rank} is more than the {min(weight.shape)} singular values of a weight here")
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        root = (s[:rank] / scale).sqrt()  # peft/tuners/lora/layer.py:429-462
        self.a.copy_(root[:, None] * vh[:rank])
        self.b.copy_(u[:, :rank] * root)
        self.register_buffer("a0", self.a.clone(), persistent=False)
        self.register_buffer("b0", self.b.clone(), persistent=False)

    def down_and_up(self) -> tuple[Tensor, Tensor]:
        # B A - B_0 A_0 = B (A - A_0) + (B - B_0) A_0 is exactly zero initially.  The left-hand side would be a small
        # difference of large products, which half precision loses.
        up = torch.cat([self.b, self.b - self.b0], dim=1)
        return torch.cat([self.a - self.a0, self.a0]), up * self.scale


@method("pissa")
class PiSSA(LoRA):
    """Trains the principal singular values and vectors of each weight and freezes the residual."""

    title = "PiSSA"
    paper = Paper("NeurIPS", 2024, "2404.02948", "GraphPKU/PiSSA")
    equation = (
        r"W' = W - \tfrac{\alpha}{r} B_0 A_0 + \tfrac{\alpha}{r} B A,\ \tfrac{\alpha}{r} B_0 A_0 = U_r S_r V_r^\top"
    )
    evidence = "authors' module"
    search = {"rank": (4, 8, 16)}  # ours: alpha cancels initially, and the paper sets it to the rank

    def validate(self) -> None:
        super().validate()
        if self.alpha <= 0:
            raise ValueError(f"alpha must be positive, not {self.alpha}: singular values are divided by alpha / rank")

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update:
        return Principal(weight, self.rank, self.scale())
