"""Tiny backbones of each kind, and a method put into one and trained for three steps: what the contract is held on."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...methods import Method
from ..engine.injection import Injected, inject, wants_examples
from ..recipes import RECIPES

_PLAIN = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
_SWIN = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}
BACKBONES: dict[str, partial[nn.Module]] = {
    "plain": partial(VisionTransformer, **_PLAIN),
    "LayerScale": partial(VisionTransformer, **_PLAIN, init_values=0.1),
    "Swin": partial(SwinTransformer, **_SWIN, num_classes=0, drop_path_rate=0.0),
}
"""The last has two stages, 32 and 64 wide, and windows that shift in the second block of the first."""

RELATIVES: dict[str, partial[nn.Module]] = {
    "registers": partial(VisionTransformer, **_PLAIN, init_values=0.1, reg_tokens=4),
    "mean pooling": partial(VisionTransformer, **_PLAIN, global_pool="avg"),
    "pre-norm": partial(VisionTransformer, **_PLAIN, pre_norm=True, act_layer="quick_gelu"),
    "no qkv bias": partial(
        VisionTransformer, **_PLAIN, init_values=0.1, qkv_bias=False, global_pool="avg", class_token=False
    ),
    "attention pooling": partial(VisionTransformer, **_PLAIN, global_pool="map", class_token=False),
}
"""Plain ViTs as DINOv2, MAE, CLIP, timm's `vit_medium_patch16_gap` and SigLIP have them."""


def backbones_for(method: Method | type[Method]) -> list[str]:
    """Those of `BACKBONES` that the method is made for."""
    return [name for name in BACKBONES if ("swin" if name == "Swin" else "vit") in method.backbones]


STILL = replace(RECIPES["smoke"], drop_path=0.0)
"""A recipe without stochastic depth."""

STEPS = 3
"""Of SGD at 0.1: enough for a gradient to get past one factor that starts at zero, then past a second (ours)."""


class Violation(Exception):
    """A promise that a method does not keep."""

    def __init__(self, found: str, advice: str, backbone: str | None = None) -> None:
        self.found, self.advice, self.backbone = found, advice, backbone
        super().__init__(found, advice, backbone)

    def __str__(self) -> str:
        where = f"on the {self.backbone} backbone " if self.backbone else ""
        return f"{where}{self.found}. {self.advice}."


@dataclass(frozen=True)
class Case:
    """A method and the tiny backbone that it is put into."""

    method: Method
    backbone: str = "plain"
    untrained: frozenset[str] = frozenset()
    """Trainable tensors of which it is known, and right, that this backbone gives them no gradient."""

    @cached_property
    def vit(self) -> VisionTransformer:
        return tiny(self.backbone)

    def violation(self, found: str, advice: str) -> Violation:
        return Violation(found, advice, self.backbone)


def tiny(backbone: str, **changes: Any) -> VisionTransformer:
    """A frozen pretrained-like model: no tensor is zero, so that nothing hides behind one."""
    generator = torch.Generator().manual_seed(0)
    vit = cast(VisionTransformer, (BACKBONES | RELATIVES)[backbone](**changes).eval())
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return vit.requires_grad_(False)


def pictures(seed: int = 1) -> Tensor:
    """[4, 3, 32, 32]"""
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def put_into(vit: VisionTransformer, method: Method, seed: int = 0) -> Injected:
    """The method in a copy of `vit`, having looked at four images if it wants to."""
    examples = (pictures(seed=9), torch.tensor([0, 1, 0, 1])) if wants_examples(method) else None
    return inject(vit, method, STILL, seed, examples)


def trained(vit: VisionTransformer, method: Method, seed: int = 0) -> tuple[Injected, set[str]]:
    """`STEPS` steps with a random head; also the names of tensors that had a gradient in one of them."""
    injected, images = put_into(vit, method, seed), pictures()
    torch.manual_seed(7)
    head = nn.Linear(vit.num_features, 5)
    labels = torch.arange(len(images)) % 5
    own = [(name, p) for name, p in injected.vit.named_parameters() if p.requires_grad]
    optimizer = torch.optim.SGD([*(p for _, p in own), *head.parameters()], lr=0.1)
    moved: set[str] = set()
    injected.vit.train()
    for step in range(1, STEPS + 1):
        loss = nn.functional.cross_entropy(head(injected.vit(images)), labels)
        if (extra := method.penalty(injected.vit)) is not None:
            loss = loss + extra
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moved |= {name for name, p in own if p.grad is not None and p.grad.abs().max() > 0}
        method.after_step(injected.vit, step, STEPS)
    injected.vit.eval()
    return injected, moved
