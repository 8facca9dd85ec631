"""A golden block inside a ViT of one block, so that what is compared is where `inject` puts things, and their start."""

from collections.abc import Mapping
from typing import Any

import torch
from golden_cases import Case, block
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import Method


def one_block_vit(d: int = 48, grid: tuple[int, int] = (4, 4), **more: Any) -> VisionTransformer:
    """A frozen ViT whose patches of 4 pixels lie on `grid`, with a class token."""
    size = (4 * grid[0], 4 * grid[1])
    vit = VisionTransformer(img_size=size, patch_size=4, embed_dim=d, depth=1, num_heads=4, num_classes=0, **more)
    return vit.eval().requires_grad_(False)


def injected(method: Method, case: Case, grid: tuple[int, int] = (4, 4)) -> VisionTransformer:
    """The method in a ViT whose only block is that of the case."""
    vit = one_block_vit(48, grid)
    vit.blocks[0] = block(case.part("frozen."))
    method.inject(vit)
    return vit


class Alone(nn.Module):
    """A parallel adapter without its branch."""

    def __init__(self, adapter: nn.Module) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        return self.adapter(x, x)


def weights_and_biases(named: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The weight and the bias of each module, as `<name>.weight` and `<name>.bias`."""
    return {f"{name}.{part}": getattr(module, part) for name, module in named.items() for part in ("weight", "bias")}


def assert_same_start(official: Mapping[str, Mapping[str, Any]], ours: Mapping[str, Tensor]) -> None:
    """The manifest's statistics of one official draw at width 768, against one of ours."""
    assert set(official) == set(ours)
    for name, theirs in official.items():
        tensor = ours[name].detach()
        assert tensor.numel() == torch.Size(theirs["shape"]).numel(), name
        assert bool((tensor == 0).all()) == theirs["all_zero"], name
        assert bool((tensor == 1).all()) == theirs["all_one"], name
        # Two draws of n numbers differ by about std / sqrt(n) in their mean and in their standard deviation
        slack = 4 * theirs["std"] / tensor.numel() ** 0.5 + 1e-9
        assert abs(float(tensor.mean()) - theirs["mean"]) <= slack, name
        assert abs(float(tensor.std(unbiased=False)) - theirs["std"]) <= slack, name
        if tensor.numel() > 1000:  # then the largest of a bounded distribution is at its bound
            assert abs(float(tensor.max()) - theirs["max"]) <= 0.05 * abs(theirs["max"]), name
            assert abs(float(tensor.min()) - theirs["min"]) <= 0.05 * abs(theirs["min"]), name
