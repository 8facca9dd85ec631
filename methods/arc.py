"""ARC, adapter re-composing (Dong et al., NeurIPS 2023, arXiv:2310.06234): all layers share one projection.

    h -> h + D diag(c_l) D^T h + b_l,   D: [d, r] shared, c_l: [r] and b_l: [d] per layer

Source: DavidYanAnDe/ARC Model/ARC_ViT.py:28-47.  The adapters are linear and have the same positions as RepAdapter's.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Method, Paper, method
from .repadapter import NORMS, adapt_input, merge_inputs
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


@method("arc")
class ARC(Method):
    """Adds symmetric linear adapters to the inputs of attention and MLP, with a projection shared by all layers."""

    bottleneck: PositiveInt = 50
    dropout: Rate = 0.1
    """Value of vtab_ARC_train.py:245."""
    where: Literal["block", "attn"] = "block"
    """block: attention and MLP, each with its own projection; attn: attention only (ARC_att)."""
    title = "ARC"
    paper = Paper("NeurIPS", 2023, "2310.06234", "DavidYanAnDe/ARC")
    equation = r"W' = W (I + D\,\mathrm{diag}(c_l)\,D^T),\quad b' = b + W b_l"
    targets = "inputs of qkv and fc1"
    evidence = "authors' training"
    differs = (
        "Follows the FGVC script; the released VTAB script trains the head alone, because its filter misses the "
        "new names."
    )
    search = {"dropout": (0.1, 0.5, 0.8)}  # the values in train_ARC_swin.py:286-398
    starts_as_identity = False  # the adapters of the MLP are not zero

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
