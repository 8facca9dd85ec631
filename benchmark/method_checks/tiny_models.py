"""Tiny backbones of each family, and functions that inject a method into one and train it for three steps."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

import torch
from timm.layers.mlp import SwiGLUPacked
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...methods import Method
from ..engine.errors import loss_term
from ..engine.eva import plain_vit
from ..engine.injection import Injected, inject, wants_examples
from ..recipes import RECIPES

_PLAIN = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
_ROTARY = {**_PLAIN, "use_rot_pos_emb": True}
_SWIN = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}
BACKBONES: dict[str, partial[nn.Module]] = {
    "plain": partial(VisionTransformer, **_PLAIN),
    "LayerScale": partial(VisionTransformer, **_PLAIN, init_values=0.1),
    "Swin": partial(SwinTransformer, **_SWIN, num_classes=0, drop_path_rate=0.0),
}
"""The Swin has two stages, 32 and 64 wide, and shifted windows in the second block of the first."""

OTHER_VITS: dict[str, partial[nn.Module]] = {
    "registers": partial(VisionTransformer, **_PLAIN, init_values=0.1, reg_tokens=4),
    "mean pooling": partial(VisionTransformer, **_PLAIN, global_pool="avg"),
    "pre-norm": partial(VisionTransformer, **_PLAIN, pre_norm=True, act_layer="quick_gelu"),
    "no qkv bias": partial(
        VisionTransformer, **_PLAIN, init_values=0.1, qkv_bias=False, global_pool="avg", class_token=False
    ),
    "attention pooling": partial(VisionTransformer, **_PLAIN, global_pool="map", class_token=False),
    "differential attention": partial(VisionTransformer, **_PLAIN, init_values=0.1, attn_layer="diff"),
    "gated MLP": partial(
        VisionTransformer, **_PLAIN, init_values=0.1, mlp_layer=SwiGLUPacked, act_layer=nn.SiLU, reg_tokens=4
    ),
    "norms inside": partial(VisionTransformer, **_PLAIN, scale_attn_norm=True, scale_mlp_norm=True, global_pool="avg"),
    "DINOv3": partial(
        Eva, **_ROTARY, init_values=0.1, qkv_bias=False, num_reg_tokens=4, use_abs_pos_emb=False, rope_type="dinov3"
    ),
    "EVA-02": partial(Eva, **_ROTARY, qkv_fused=False, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True),
    "EVA": partial(Eva, **_PLAIN, global_pool="token", swiglu_mlp=True),
    "PE": partial(Eva, **_ROTARY, attn_type="rope", use_pre_transformer_norm=True, global_pool="map"),
}
"""The forms of plain ViTs in DINOv2, MAE, CLIP, timm's `vit_medium_patch16_gap`, SigLIP, timm's `vit_dwee`, DINOv2's
giant, BEiT-3, and of timm's Eva: DINOv3, EVA-02 base, EVA-02 tiny without rotation, and the Perception Encoder."""


def backbones_for(method: Method | type[Method]) -> list[str]:
    """Return the names of the `BACKBONES` that the method supports."""
    return [name for name in BACKBONES if ("swin" if name == "Swin" else "vit") in method.backbones]


NO_DROP_PATH = replace(RECIPES["smoke"], drop_path=0.0)
"""A recipe without stochastic depth."""

STEPS = 3
"""SGD steps at 0.1 (ours): enough for a gradient to pass two factors that are initially zero, one after the other."""


class CheckFailed(Exception):
    """A method does not pass a check: what was found, and what to do."""

    def __init__(self, found: str, advice: str, backbone: str | None = None) -> None:
        self.found, self.advice, self.backbone = found, advice, backbone
        super().__init__(found, advice, backbone)

    def __str__(self) -> str:
        where = f"on the {self.backbone} backbone " if self.backbone else ""
        return f"{where}{self.found}. {self.advice}."


@dataclass(frozen=True)
class Case:
    """A method and the tiny backbone that it is injected into."""

    method: Method
    backbone: str = "plain"
    untrained: frozenset[str] = frozenset()
    """Trainable tensors that correctly get no gradient on this backbone."""

    @cached_property
    def checkpoint(self) -> dict[str, Tensor]:
        """The values of `vit` as no method can change them."""
        return tiny(self.backbone).state_dict()

    @cached_property
    def vit(self) -> VisionTransformer:
        vit = tiny(self.backbone)
        vit.load_state_dict(self.checkpoint)
        return vit

    @cached_property
    def fresh(self) -> Injected:
        """The method injected with seed 0, to be read only."""
        return inject_copy(self.vit, self.method)

    @cached_property
    def trained(self) -> tuple[Injected, set[str]]:
        """The model after a few steps and the tensors that had a gradient, to be read only."""
        return train_few_steps(self.vit, self.method)

    def restored(self) -> Injected:
        """Return a copy of the trained model, made of a new injection and the trained adapter."""
        injected = inject_copy(self.vit, self.method)
        injected.load_adapter(self.trained[0].adapter())
        injected.vit.eval()
        return injected

    def failure(self, found: str, advice: str) -> CheckFailed:
        return CheckFailed(found, advice, self.backbone)


def tiny(backbone: str, **changes: Any) -> VisionTransformer:
    """Return a frozen backbone without zero tensors, as a pretrained model has none."""
    generator = torch.Generator().manual_seed(0)
    vit = (BACKBONES | OTHER_VITS)[backbone](**changes).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    vit = plain_vit(vit) if isinstance(vit, Eva) else cast(VisionTransformer, vit)
    return vit.requires_grad_(False)


def sample_images(seed: int = 1) -> Tensor:
    """Return random images [4, 3, 32, 32]."""
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def inject_copy(vit: VisionTransformer, method: Method, seed: int = 0) -> Injected:
    """Inject the method into a copy of `vit`, and prepare it with four images if it needs examples."""
    examples = (sample_images(seed=9), torch.tensor([0, 1, 0, 1])) if wants_examples(method) else None
    return inject(vit, method, NO_DROP_PATH, seed, examples)


def train_few_steps(vit: VisionTransformer, method: Method, seed: int = 0) -> tuple[Injected, set[str]]:
    """Train for `STEPS` steps with a random head; also return the names of tensors that had a gradient."""
    injected = inject_copy(vit, method, seed)
    return injected, train_injected(injected, method)


def train_injected(injected: Injected, method: Method) -> set[str]:
    """Train an injected model as `train_few_steps` does and return the names of tensors that had a gradient."""
    images = sample_images()
    torch.manual_seed(7)
    head = nn.Linear(injected.vit.num_features, 5)
    labels = torch.arange(len(images)) % 5
    trainable = [(name, p) for name, p in injected.vit.named_parameters() if p.requires_grad]
    optimizer = torch.optim.SGD([*(p for _, p in trainable), *head.parameters()], lr=0.1)
    with_gradient: set[str] = set()
    injected.vit.train()
    for step in range(1, STEPS + 1):
        logits = head(injected.vit(torch.cat([images] * method.copies)))
        loss = loss_term(method, "loss", method.loss(injected.vit, logits, labels, nn.functional.cross_entropy))
        if (extra := method.penalty(injected.vit)) is not None:
            loss = loss + loss_term(method, "penalty", extra)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with_gradient |= {name for name, p in trainable if p.grad is not None and p.grad.abs().max() > 0}
        method.after_step(injected.vit, step, STEPS)
    injected.vit.eval()
    return with_gradient
