"""Consolidator (Hao et al., ICLR 2023, arXiv:2305.00603): grouped linear maps beside every linear map, which merge.

    y = W x + b + drop_path(G x + g),   G block-diagonal

The biases of the linear maps and all LayerNorms are trained as well.  The official runs have 384 groups at width 768,
two channels each, and no channel shuffle (THU-MIG/Consolidator model/vision_transformer_timm.py:265-387).
"""

from typing import cast

import torch
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of, linear_biases
from .arguments import PositiveInt, Rate
from .base import Paper, method
from .baselines import LayerNorm
from .updates import LinearUpdateMethod, Update, UpdatedLinear


class Grouped(Update):
    """x -> drop_path(G x + g), where each group of outputs reads its own group of inputs."""

    def __init__(self, inputs: int, outputs: int, groups: int, drop_path: float) -> None:
        super().__init__()
        if inputs % groups or outputs % groups:
            raise ValueError(f"{groups} groups must divide the {inputs} inputs and the {outputs} outputs of a map")
        self.groups, self.drop_path = groups, DropPath(drop_path)
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups).uniform_(-1e-3, 1e-3))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-1e-3, 1e-3))

    def blocks(self) -> Tensor:
        return self.weight.unflatten(0, (self.groups, -1))  # [groups, outputs / groups, inputs / groups]

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        grouped = x.unflatten(-1, (self.groups, -1))
        return self.drop_path(torch.einsum("...gi,goi->...go", grouped, self.blocks()).flatten(-2) + self.bias)

    def delta(self) -> Tensor:
        return torch.block_diag(*self.blocks())

    def bias_delta(self) -> Tensor:
        return self.bias


@method("consolidator")
class Consolidator(LinearUpdateMethod):
    """Adds a grouped linear map to every linear map, and trains all biases and LayerNorms of the blocks."""

    group_width: PositiveInt = 2
    """Channels of a group, counted on the narrower side of a map."""
    drop_path: Rate = 0.0
    """Probability of skipping an update for an image in training; 0 to 0.8 per task in the official script."""
    title = "Consolidator"
    paper = Paper("ICLR", 2023, "2305.00603", "THU-MIG/Consolidator")
    equation = r"W' = W + \mathrm{blockdiag}(G_1, \ldots, G_g),\quad b' = b + g"
    targets = "qkv, o, fc1, fc2, biases, LayerNorms"
    evidence = "authors' training"
    search = {"drop_path": (0.0, 0.2, 0.5, 0.8)}  # configs/Consolidator/VTAB/train_consolidator_vtab.sh
    starts_as_identity = False  # all entries are initially uniform within 0.001
    backbones = ("vit", "swin")
    sites, fused = "qkv,o,fc1,fc2", True

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update:
        outputs, inputs = weight.shape
        return Grouped(inputs, outputs, self.groups(inputs, outputs), self.drop_path)

    def groups(self, inputs: int, outputs: int) -> int:
        """Return the number of groups of a map; raise `ValueError` if a group is wider than the map."""
        if not (groups := min(inputs, outputs) // self.group_width):
            raise ValueError(
                f"group_width={self.group_width} exceeds the {min(inputs, outputs)} channels of a map here"
            )
        return groups

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        LayerNorm().inject(vit)
        for ref in blocks_of(vit):
            for module in ref.block.modules():
                if isinstance(module, UpdatedLinear) and module.linear.bias is not None:
                    cast(Tensor, module.linear.bias).requires_grad_(True)

    def expected_params(self, vit: VisionTransformer) -> int:
        trained = LayerNorm().expected_params(vit) + sum(linear_biases(ref) for ref in blocks_of(vit))
        return super().expected_params(vit) + trained

    def update_params(self, inputs: int, outputs: int) -> int:
        return outputs * (inputs // self.groups(inputs, outputs) + 1)
