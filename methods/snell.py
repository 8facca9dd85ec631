"""SNELL, sparse tuning with kernelised LoRA (Shen et al., NeurIPS 2024, arXiv:2411.01800).

Each entry of the update is a difference of two distances between learned points, one per output o and input i.  A few
numbers thus generate a matrix of high rank, of which small entries are set to zero:

    K_oi = s (|p_o - p_i| - |p'_o - p'_i|),   dW = K * |K| where |K| exceeds its quantile, else 0.

The factor |K| is constant in the backward pass (ssfgunner/SNELL model/vision_transformer_timm.py:181-298).
"""

import math
from itertools import cycle

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import Rate
from .base import Paper, later, method
from .updates import ALL_SITES, SITES, LinearUpdateMethod, Update, update_linears


class KernelUpdate(Update):
    """x -> drop_path(dW drop(x)).

    dW is a separate product, because it is initially so small that bf16 would lose it in the sum with W.
    """

    def __init__(self, weight: Tensor, method: "SNELL", dropout: float) -> None:  # weight: [outputs, inputs]
        super().__init__()
        outputs, inputs = weight.shape
        self.scale, self.sparsity = method.scale, method.sparsity
        self.outputs, self.inputs = (
            nn.Parameter(nn.init.kaiming_uniform_(torch.empty(2, n, method.rank // 2), a=math.sqrt(5)))
            for n in (outputs, inputs)
        )
        self.dropout, self.drop_path = nn.Dropout(dropout), DropPath(method.drop_path)

    def delta(self) -> Tensor:  # [outputs, inputs]
        first, second = torch.cdist(self.outputs, self.inputs)
        kernel = self.scale * (first - second)
        if not self.sparsity:
            return kernel
        size = kernel.detach().abs()
        return kernel * size * (size > torch.quantile(size, self.sparsity))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return self.drop_path(F.linear(self.dropout(x), self.delta()))


@method("snell")
class SNELL(LinearUpdateMethod):
    """Adds to each weight a sparse update, computed from low-dimensional points by a distance kernel."""

    rank: int = 32
    """Coordinates per point, half of them for each of the two distances."""
    sparsity: float = 0.4
    """Fraction of zero entries; at 0 the update is K.  The released VTAB scripts use 0 to 0.995, median 0.4."""
    scale: float = 0.1
    dropout: Rate = 0.1
    """Dropout of the update's input, except for o, as released.  Here q, k and v have separate masks, whereas the
    release shares one."""
    drop_path: Rate = 0.1
    class_token: bool = later(default=False)
    """True also trains the class token, as the release does."""
    title = "SNELL"
    paper = Paper("NeurIPS", 2024, "2411.01800", "ssfgunner/SNELL")
    equation = r"\Delta W = K \odot |K| \odot [\,|K| > t\,], \quad K_{oi} = s(\|p_o - p_i\| - \|p'_o - p'_i\|)"
    targets = "q, k, v, o, fc1, fc2"
    evidence = "authors' training"
    differs = (
        "The class token is trained there; `class_token=True` does so. The release shares one dropout mask among "
        "q, k and v."
    )
    search = {"sparsity": (0.0, 0.4, 0.9, 0.99)}
    starts_as_identity = False
    sites = ALL_SITES

    def validate(self) -> None:
        if self.rank < 2 or self.rank % 2:
            raise ValueError(f"rank must be even and at least 2, as two distances share it, not {self.rank}")
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be at least 0 and below 1, not {self.sparsity}")

    def inject(self, vit: VisionTransformer) -> None:
        dropouts = cycle(0.0 if site == "o" else self.dropout for site in SITES)  # in the order of `update_linears`
        update_linears(vit, self.sites, lambda weight, _: KernelUpdate(weight, self, next(dropouts)))
        if self.class_token and vit.cls_token is not None:
            vit.cls_token.requires_grad_(True)

    def expected_params(self, vit: VisionTransformer) -> int:
        token = vit.cls_token if self.class_token else None
        return super().expected_params(vit) + (0 if token is None else token.numel())

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs)
