"""A method without fault, and the list of those that fail one check."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.benchmark.method_checks.checks import Check
from vtab_peft.methods import Method


class Gained(nn.Module):
    """x -> gain * norm(x); incorrect subclasses change one line."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm, self.gain = norm, nn.Parameter(torch.ones_like(norm.weight))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        return self.norm(x) * self.gain

    @torch.no_grad()
    def merged(self) -> nn.LayerNorm:
        self.norm.weight *= self.gain
        self.norm.bias *= self.gain
        return self.norm


class Right(Method):
    """Trains a factor per channel after each block's first LayerNorm."""

    title = "Right"
    equation = r"y = g \odot \mathrm{LN}(x)"
    targets = "first LayerNorm of each block"
    evidence = "closed form"
    part = Gained

    def inject(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            block.norm1 = self.part(block.norm1)

    def merge(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            block.norm1 = block.norm1.merged()

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * vit.embed_dim


BREAKERS: list[tuple[Check, type[Method], str]] = []
"""A check, a method that fails only this check, and a pattern of the message."""


def breaks(check: Check, says: str) -> Callable[[type[Method]], type[Method]]:
    def add(cls: type[Method]) -> type[Method]:
        BREAKERS.append((check, dataclass(frozen=True)(cls), says))
        return cls

    return add
