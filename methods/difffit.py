"""DiffFit (Xie et al., ICCV 2023, arXiv:2304.06648): biases, LayerNorms and a scale for each branch of each block.

Made for diffusion transformers; on a ViT as in OSU-MLB/ViT_PEFT_Vision model/block.py:82-166.  There the scale acts on
the branch as it is added.  Here it acts on the branch's last linear map, into which it folds: the same, as whatever
comes between (LayerScale, drop-path) multiplies too.
"""

from dataclasses import dataclass
from typing import cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of
from .base import Method, Paper, register
from .baselines import BitFit, LayerNorm

_ENDS = (("attn", "proj"), ("mlp", "fc2"))


class Scaled(nn.Module):
    """gamma * linear(x), gamma one at the start."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.gamma = linear, nn.Parameter(torch.ones(linear.out_features))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return self.linear(x) * self.gamma

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        self.linear.weight *= self.gamma[:, None]
        if self.linear.bias is not None:
            self.linear.bias.mul_(self.gamma)
        return self.linear


@register("difffit")
@dataclass(frozen=True)
class DiffFit(Method):
    """BitFit, all LayerNorm weights, and a learned scale per channel of every branch."""

    title = "DiffFit"
    paper = Paper("ICCV", 2023, "2304.06648")
    equation = r"x \leftarrow x + \gamma \odot f(\mathrm{LN}(x)), \quad \gamma \text{, biases and LN learned}"
    places = "all biases, LayerNorms, both branches"
    backbones = ("vit", "swin")
    evidence = "golden"

    def inject(self, vit: VisionTransformer) -> None:
        BitFit().inject(vit)
        LayerNorm().inject(vit)
        for place in blocks_of(vit):
            for branch, end in _ENDS:
                parent = place.block.get_submodule(branch)
                setattr(parent, end, Scaled(cast(nn.Linear, getattr(parent, end))))

    def merge(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            for branch, end in _ENDS:
                parent = place.block.get_submodule(branch)
                setattr(parent, end, cast(Scaled, getattr(parent, end)).merged())

    def expected_params(self, vit: VisionTransformer) -> int:
        norm_weights = LayerNorm().expected_params(vit) // 2
        return BitFit().expected_params(vit) + norm_weights + 2 * sum(place.width for place in blocks_of(vit))
