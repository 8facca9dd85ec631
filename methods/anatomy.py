"""Structure of the supported backbones: their blocks in order, the width of each, and the modules outside them.

A plain ViT has one stage of blocks of equal width.  A Swin Transformer (Liu et al., ICCV 2021, arXiv:2103.14030; timm's
`swin_transformer.py`) has stages of growing width with patch merging between them.  Its tokens are [b, h, w, d] and its
attention is windowed.  Blocks of both have the same part names: norm1, attn with qkv and proj, norm2, mlp with fc1 and
fc2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

VisionModel = VisionTransformer | SwinTransformer
"""A backbone that some methods support."""

Family = Literal["vit", "swin"]

FAMILIES: dict[Family, str] = {"vit": "a plain ViT", "swin": "a Swin Transformer"}


@dataclass(frozen=True)
class BlockRef:
    """A position in a model's sequence of blocks."""

    stage: nn.Sequential
    index: int
    path: str
    """Name of the block in the model's state dict: `blocks.3`, `layers.2.blocks.5`."""
    width: int
    """Embedding dimension d."""

    @property
    def block(self) -> nn.Module:
        return self.stage[self.index]

    def replace(self, module: nn.Module) -> None:
        """Run `module` instead of the block."""
        self.stage[self.index] = module


def backbone_family(vit: nn.Module) -> Family:
    """Return the family of a backbone."""
    return "swin" if isinstance(vit, SwinTransformer) else "vit"


def blocks_of(vit: nn.Module) -> list[BlockRef]:
    """Return a reference to every block in forward order."""
    return [BlockRef(stage, i, f"{path}.{i}", width) for stage, path, width in _stages(vit) for i in range(len(stage))]


def modules_outside_blocks(vit: nn.Module) -> Iterator[nn.Module]:
    """Yield every module of the model that does not belong to a block."""
    inside = {id(module) for stage, *_ in _stages(vit) for module in stage.modules()}
    return (module for module in vit.modules() if id(module) not in inside)


def patch_convolution(vit: nn.Module) -> nn.Conv2d:
    """Return the convolution that makes the patches, also if a method has wrapped it."""
    return next(module for module in vit.get_submodule("patch_embed").modules() if isinstance(module, nn.Conv2d))


def final_norm(vit: nn.Module) -> str:
    """Return the name of the last norm, which follows the pooling in models that average tokens before it."""
    return "fc_norm" if isinstance(vit.norm, nn.Identity) else "norm"


def mlp_width(block: nn.Module) -> int:
    """Return the number of outputs of fc1 in an unmodified block."""
    return cast(nn.Linear, block.get_submodule("mlp.fc1")).out_features


def mlp_hidden(block: nn.Module) -> int:
    """Return the number of inputs of fc2 in an unmodified block: in a gated MLP (SwiGLU), half the outputs of fc1."""
    return cast(nn.Linear, block.get_submodule("mlp.fc2")).in_features


def linear_biases(ref: BlockRef) -> int:
    """Count the biases of an unmodified block's linear maps: o, fc1 and fc2 have one, qkv only in some models."""
    qkv = cast(nn.Linear, ref.block.get_submodule("attn.qkv"))
    return (2 if qkv.bias is None else 5) * ref.width + mlp_width(ref.block)


def _stages(vit: nn.Module) -> list[tuple[nn.Sequential, str, int]]:
    """Return blocks, name and width of each stage."""
    if isinstance(vit, SwinTransformer):
        layers = cast(nn.Sequential, vit.layers)
        return [
            (cast(nn.Sequential, layer.blocks), f"layers.{i}.blocks", cast(int, vit.embed_dim) * 2**i)
            for i, layer in enumerate(layers)
        ]
    return [(cast(nn.Sequential, vit.blocks), "blocks", cast(int, vit.embed_dim))]
