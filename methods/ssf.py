"""SSF, scaling and shifting features (Lian et al., NeurIPS 2022, arXiv:2210.08823).

    y -> gamma * y + beta,   gamma, beta: [channels]

after the patch embedding, every LayerNorm and every linear map (dongzelian/SSF models/vision_transformer.py).  The
factors merge into the module before them.
"""

from collections.abc import Iterable
from typing import cast

import torch
from timm.models.swin_transformer import PatchMerging
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import backbone_family, blocks_of, final_norm, mlp_width
from .base import Method, Paper, method

NORMS = ("norm1", "norm2")
_NORMS_AND_LINEARS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


class ScaledShifted(nn.Module):
    """x -> gamma * module(x) + beta over the channels of a linear map, LayerNorm or patch convolution."""

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
        """Return the equivalent plain module, with a new bias if it had none."""
        weight, bias = self.module.weight, self.module.bias
        weight *= self.gamma.reshape(-1, *[1] * (weight.ndim - 1))
        if bias is None:
            self.module.bias = nn.Parameter(self.beta.detach().clone(), requires_grad=False)
        else:
            bias.mul_(self.gamma).add_(self.beta)
        return self.module


def scale_and_shift(vit: VisionTransformer, paths: Iterable[str]) -> None:
    """Wrap the patch embedding, the final norm and the named modules of every block in `ScaledShifted`."""
    for parent, name in _wrapped_modules(vit, paths):
        module = cast(nn.Linear, getattr(parent, name))
        setattr(parent, name, ScaledShifted(module, len(module.weight)))


def merge_scales(vit: VisionTransformer, paths: Iterable[str]) -> None:
    """Undo `scale_and_shift` by merging factors and shifts into the wrapped modules."""
    for parent, name in _wrapped_modules(vit, paths):
        setattr(parent, name, cast(ScaledShifted, getattr(parent, name)).merged())


def _wrapped_modules(vit: VisionTransformer, paths: Iterable[str]) -> list[tuple[nn.Module, str]]:
    """Return parent module and attribute name of everything that is wrapped."""
    found = [(cast(nn.Module, vit.patch_embed), "proj"), (cast(nn.Module, vit), final_norm(vit))]
    for ref in blocks_of(vit):
        for path in paths:
            parent, _, name = path.rpartition(".")
            found.append((ref.block.get_submodule(parent), name))
    return found + _between_stages(vit)


def _between_stages(vit: VisionTransformer) -> list[tuple[nn.Module, str]]:
    """Return a Swin Transformer's norm after the patch embedding, and norm and linear map of each patch merging."""
    if backbone_family(vit) != "swin":
        return []
    merging = [module for module in vit.modules() if isinstance(module, PatchMerging)]
    return [(cast(nn.Module, vit.patch_embed), "norm"), *((m, name) for m in merging for name in ("norm", "reduction"))]


@method("ssf")
class SSF(Method):
    """Trains a scale and a shift for every output channel of every linear map and LayerNorm."""

    title = "SSF"
    paper = Paper("NeurIPS", 2022, "2210.08823", "dongzelian/SSF")
    equation = r"y \leftarrow \gamma \odot y + \beta"
    targets = "patch embedding, LayerNorms, all linears"
    evidence = "authors' training"
    backbones = ("vit", "swin")
    starts_as_identity = False  # gamma ~ N(1, 0.02), beta ~ N(0, 0.02)

    def inject(self, vit: VisionTransformer) -> None:
        scale_and_shift(vit, _NORMS_AND_LINEARS)

    def merge(self, vit: VisionTransformer) -> None:
        merge_scales(vit, _NORMS_AND_LINEARS)

    def expected_params(self, vit: VisionTransformer) -> int:
        ends = vit.embed_dim + vit.num_features
        between = sum(len(getattr(parent, name).weight) for parent, name in _between_stages(vit))
        return 2 * (ends + between + sum(7 * ref.width + mlp_width(ref.block) for ref in blocks_of(vit)))
