"""ARC, adapter re-composing (Dong et al., NeurIPS 2023, arXiv:2310.06234): all layers share one projection.

DavidYanAnDe/ARC Model/ARC_ViT.py:28-47.  What a layer has of its own is a scale for each dimension of the bottleneck,
and a bias; the adapters are linear and stand where RepAdapter's do.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register, require_positive
from .repadapter import NORMS, Where, adapt_input, merge_inputs
from .updates import Update


class Recomposed(Update):
    """h -> D diag(c) D^T h + b, with D shared between layers."""

    def __init__(self, projection: nn.Parameter, rescale: Tensor, dropout: float) -> None:
        super().__init__()  # projection: [d, r], rescale: [r]
        self.projection, self.rescale = projection, nn.Parameter(rescale)
        self.bias, self.dropout = nn.Parameter(torch.zeros(len(projection))), nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:  # [b, n, d]
        z = F.linear(h, self.projection.T) * self.rescale
        return F.linear(self.dropout(z), self.projection, self.bias)

    def delta(self) -> Tensor:
        return self.projection * self.rescale @ self.projection.T

    def bias_delta(self) -> Tensor:
        return self.bias


@register("arc")
@dataclass(frozen=True)
class ARC(Method):
    """Symmetric linear adapters on the input of attention and MLP, whose projection all layers share."""

    bottleneck: int = 50
    dropout: float = 0.1
    """vtab_ARC_train.py:245."""
    where: Where = "block"
    """Before attention and MLP, each with a projection of its own, or before attention alone (ARC_att)."""
    title = "ARC"
    paper = Paper("NeurIPS", 2023, "2310.06234", "DavidYanAnDe/ARC")
    equation = r"W' = W (I + D\,\mathrm{diag}(c_l)\,D^T),\quad b' = b + W b_l"
    places = "before qkv and fc1"
    evidence = "golden"
    search = {"dropout": (0.1, 0.5, 0.8)}  # the values in train_ARC_swin.py:286-398
    starts_as_identity = False  # the MLP's adapters are not zero

    def __post_init__(self) -> None:
        require_positive(bottleneck=self.bottleneck)
        if self.where not in NORMS:
            raise ValueError(f"where must be one of {', '.join(NORMS)}, not {self.where!r}")

    def inject(self, vit: VisionTransformer) -> None:
        for norm in NORMS[self.where]:
            projection = nn.Parameter(nn.init.xavier_uniform_(torch.empty(vit.embed_dim, self.bottleneck)))
            for block in vit.blocks:
                rescale = torch.zeros(1, self.bottleneck)
                if norm == "norm2":  # ARC_ViT.py:35-38: zero before attention, Xavier of [1, r] before the MLP
                    nn.init.xavier_uniform_(rescale)
                adapt_input(block, norm, Recomposed(projection, rescale[0], self.dropout))

    def merge(self, vit: VisionTransformer) -> None:
        merge_inputs(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        d, r = vit.embed_dim, self.bottleneck
        return len(NORMS[self.where]) * (d * r + len(vit.blocks) * (r + d))
