"""SSF, scaling and shifting features (Lian et al., NeurIPS 2022, arXiv:2210.08823): y -> gamma * y + beta.

Behind the patch embedding, every LayerNorm and every linear map (dongzelian/SSF models/vision_transformer.py);
folds into what it stands behind.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from timm.models.swin_transformer import PatchMerging
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of, final_norm, kind, mlp_width
from .base import Method, Paper, register

NORMS = ("norm1", "norm2")
_BEHIND = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


class ScaledShifted(nn.Module):
    """gamma * module(x) + beta over the channels of a linear map, LayerNorm or patch convolution."""

    def __init__(self, module: nn.Linear | nn.Conv2d | nn.LayerNorm, channels: int) -> None:
        super().__init__()
        self.module = module
        self.gamma = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))
        self.beta = nn.Parameter(torch.empty(channels).normal_(0.0, 0.02))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.module, nn.Conv2d):  # [b, channels, h, w]
            return self.module(x) * self.gamma[:, None, None] + self.beta[:, None, None]
        return self.module(x) * self.gamma + self.beta

    @torch.no_grad()
    def merged(self) -> nn.Module:
        weight, bias = self.module.weight, self.module.bias
        weight *= self.gamma.reshape(-1, *[1] * (weight.ndim - 1))
        if bias is None:
            self.module.bias = nn.Parameter(self.beta.detach().clone(), requires_grad=False)
        else:
            bias.mul_(self.gamma).add_(self.beta)
        return self.module


def scale_and_shift(vit: VisionTransformer, behind: Iterable[str]) -> None:
    """Put a `ScaledShifted` around the patch embedding, the final norm and the named modules of every block."""
    for parent, name in _places(vit, behind):
        module = cast(nn.Linear, getattr(parent, name))
        setattr(parent, name, ScaledShifted(module, len(module.weight)))


def fold(vit: VisionTransformer, behind: Iterable[str]) -> None:
    """Undo `scale_and_shift`, what was learned going into the modules."""
    for parent, name in _places(vit, behind):
        setattr(parent, name, cast(ScaledShifted, getattr(parent, name)).merged())


def _places(vit: VisionTransformer, behind: Iterable[str]) -> list[tuple[nn.Module, str]]:
    found = [(cast(nn.Module, vit.patch_embed), "proj"), (cast(nn.Module, vit), final_norm(vit))]
    for place in blocks_of(vit):
        for path in behind:
            parent, _, name = path.rpartition(".")
            found.append((place.block.get_submodule(parent), name))
    return found + _between_stages(vit)


def _between_stages(vit: VisionTransformer) -> list[tuple[nn.Module, str]]:
    """Where a Swin Transformer embeds and merges patches: a norm behind the embedding, a norm and a linear map each."""
    if kind(vit) != "swin":
        return []
    merging = [module for module in vit.modules() if isinstance(module, PatchMerging)]
    return [(cast(nn.Module, vit.patch_embed), "norm"), *((m, name) for m in merging for name in ("norm", "reduction"))]


@register("ssf")
@dataclass(frozen=True)
class SSF(Method):
    """A scale and a shift for every channel of every linear map and LayerNorm."""

    title = "SSF"
    paper = Paper("NeurIPS", 2022, "2210.08823", "dongzelian/SSF")
    equation = r"y \leftarrow \gamma \odot y + \beta"
    places = "patch embedding, LayerNorms, all linears"
    evidence = "golden"
    backbones = ("vit", "swin")
    starts_as_identity = False  # gamma ~ N(1, 0.02), beta ~ N(0, 0.02)

    def inject(self, vit: VisionTransformer) -> None:
        scale_and_shift(vit, _BEHIND)

    def merge(self, vit: VisionTransformer) -> None:
        fold(vit, _BEHIND)

    def expected_params(self, vit: VisionTransformer) -> int:
        ends = vit.embed_dim + vit.num_features
        between = sum(len(getattr(parent, name).weight) for parent, name in _between_stages(vit))
        return 2 * (ends + between + sum(7 * place.width + mlp_width(place.block) for place in blocks_of(vit)))
