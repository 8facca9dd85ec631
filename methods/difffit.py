"""DiffFit (Xie et al., ICCV 2023, arXiv:2304.06648): biases, LayerNorms and a scale for each branch of each block.

    x -> x + gamma * f(LN(x)),   gamma: [d]

DiffFit was made for diffusion transformers; the ViT form is that of OSU-MLB/ViT_PEFT_Vision model/block.py:82-166.
There gamma multiplies the branch when it is added.  Here it multiplies the branch's last linear map, into which it
merges.  Both are equal, because everything in between (LayerScale, drop path) is a multiplication as well.
"""

from collections.abc import Iterator
from typing import cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of
from .base import Method, Paper, method
from .baselines import BitFit, LayerNorm


class Scaled(nn.Module):
    """x -> gamma * linear(x), where gamma is initially one."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.gamma = linear, nn.Parameter(torch.ones(linear.out_features))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return self.linear(x) * self.gamma

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the equivalent plain linear map."""
        self.linear.weight *= self.gamma[:, None]
        if self.linear.bias is not None:
            self.linear.bias.mul_(self.gamma)
        return self.linear


def _last_linears(vit: VisionTransformer) -> Iterator[tuple[nn.Module, str]]:
    """Yield parent and name of the last linear map of each branch."""
    for ref in blocks_of(vit):
        yield ref.block.get_submodule("attn"), "proj"
        yield ref.block.get_submodule("mlp"), "fc2"


@method("difffit")
class DiffFit(Method):
    """Trains all biases, all LayerNorm weights and a scale per channel of every branch."""

    title = "DiffFit"
    paper = Paper("ICCV", 2023, "2304.06648")
    equation = r"x \leftarrow x + \gamma \odot f(\mathrm{LN}(x)), \quad \gamma \text{, biases and LN learned}"
    targets = "all biases, LayerNorms, both branches"
    backbones = ("vit", "swin")
    evidence = "reference implementation"

    def inject(self, vit: VisionTransformer) -> None:
        BitFit().inject(vit)
        LayerNorm().inject(vit)
        for parent, name in _last_linears(vit):
            setattr(parent, name, Scaled(cast(nn.Linear, getattr(parent, name))))

    def merge(self, vit: VisionTransformer) -> None:
        for parent, name in _last_linears(vit):
            setattr(parent, name, cast(Scaled, getattr(parent, name)).merged())

    def expected_params(self, vit: VisionTransformer) -> int:
        norm_weights = LayerNorm().expected_params(vit) // 2
        return BitFit().expected_params(vit) + norm_weights + 2 * sum(ref.width for ref in blocks_of(vit))
