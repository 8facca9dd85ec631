"""What methods need to know of a backbone: its blocks in order, how wide each is, and what lies around them.

A plain ViT is one stage of blocks of one width.  A Swin Transformer (Liu et al., ICCV 2021, arXiv:2103.14030; timm's
`swin_transformer.py`) has stages of growing width, between which patches are merged; its tokens are [b, h, w, d] and
its attention works in windows.  Inside a block both name their parts alike: norm1, attn with qkv and proj, norm2, mlp
with fc1 and fc2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from timm.models.swin_transformer import SwinTransformer
from torch import nn

Kind = Literal["vit", "swin"]

KINDS: dict[Kind, str] = {"vit": "a plain ViT", "swin": "a Swin Transformer"}


@dataclass(frozen=True)
class BlockRef:
    """Where a block stands; what is put there is run instead of it."""

    stage: nn.Sequential
    index: int
    path: str
    """Of the block in the model, as in its state: `blocks.3`, `layers.2.blocks.5`."""
    width: int

    @property
    def block(self) -> nn.Module:
        return self.stage[self.index]

    def replace(self, module: nn.Module) -> None:
        self.stage[self.index] = module


def kind(vit: nn.Module) -> Kind:
    return "swin" if isinstance(vit, SwinTransformer) else "vit"


def blocks_of(vit: nn.Module) -> list[BlockRef]:
    """Every block's place, in the order they are run."""
    return [BlockRef(stage, i, f"{path}.{i}", width) for stage, path, width in _stages(vit) for i in range(len(stage))]


def around(vit: nn.Module) -> Iterator[nn.Module]:
    """Every module of the model that is in no block."""
    inside = {id(module) for stage, *_ in _stages(vit) for module in stage.modules()}
    return (module for module in vit.modules() if id(module) not in inside)


def final_norm(vit: nn.Module) -> str:
    """Name of the last norm: behind the pooling in models that average after it."""
    return "fc_norm" if isinstance(vit.norm, nn.Identity) else "norm"


def mlp_width(block: nn.Module) -> int:
    """Hidden features of the MLP of a plain block."""
    return cast(nn.Linear, block.get_submodule("mlp.fc1")).out_features


def linear_biases(place: BlockRef) -> int:
    """Biases of the linear maps of a plain block: o, fc1 and fc2 have them, qkv not in every model."""
    qkv = cast(nn.Linear, place.block.get_submodule("attn.qkv"))
    return (2 if qkv.bias is None else 5) * place.width + mlp_width(place.block)


def _stages(vit: nn.Module) -> list[tuple[nn.Sequential, str, int]]:
    """Blocks, their path and their width, stage by stage."""
    if isinstance(vit, SwinTransformer):
        layers = cast(nn.Sequential, vit.layers)
        return [
            (cast(nn.Sequential, layer.blocks), f"layers.{i}.blocks", cast(int, vit.embed_dim) * 2**i)
            for i, layer in enumerate(layers)
        ]
    return [(cast(nn.Sequential, vit.blocks), "blocks", cast(int, vit.embed_dim))]
