"""A transformer block as two residual branches, and the ways to add an adapter to them.

Sequential adapters are `nn.Sequential(module, Residual(adapter))`, after a norm, a branch or a whole block.  Parallel
adapters are the `beside` of a `Branch`.

`Branch` and `WindowAttention` repeat the forward pass of timm's blocks (compared with timm 1.0.26 to 1.0.31).
`branches` compares both once for each kind of block and refuses blocks where they differ.
"""

from math import prod
from typing import cast

import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .initial_values import trunc_normal_


def init_as_timm(module: nn.Module) -> None:
    """Initialise a linear map as timm's ViT does at its creation: weight ~ N(0, 0.02), bias 0.

    Some releases do this to the whole model after a method's own initialisation.
    """
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class First(nn.Module):
    """[b, n, d] -> the first token, [b, d]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class Residual(nn.Module):
    """x -> x + adapter(x)."""

    def __init__(self, adapter: nn.Module) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        return x + self.adapter(x)


class Branch(nn.Module):
    """One residual branch of a pre-norm block, with an optional parallel adapter `beside`.

    h = norm(x);  x -> x + drop_path(scale(inner(h))) + beside(x, h)

    The parallel adapter reads the residual stream x and the branch's input h, both [b, n, d].
    """

    def __init__(
        self, norm: nn.Module, inner: nn.Module, scale: nn.Module, drop_path: nn.Module, beside: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.norm, self.inner, self.scale, self.drop_path, self.beside = norm, inner, scale, drop_path, beside

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        h = self.norm(x)
        y = x + self.drop_path(self.scale(self.inner(h)))
        return y if self.beside is None else y + self.beside(x, h)


class WindowAttention(nn.Module):
    """The windowed attention of a Swin block without norm and residual: [b, h, w, d] -> [b, h, w, d]."""

    def __init__(self, block: SwinTransformerBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block._attn(x)


def branches(block: nn.Module) -> tuple[Branch, Branch]:
    """Split a timm block into its attention and its MLP branch; running one after the other is the whole block.

    Raises:
        ValueError: timm computes this block in another way.
    """
    kind = (type(block), *map(type, block.children()))
    if kind in _compared:
        return _split(block)
    training, x = block.training, _tokens(block)
    with torch.no_grad():
        expected = block.eval()(x)
        attention, mlp = _split(block)
        found = mlp.eval()(attention.eval()(x))
    if not are_close(found, expected, expected - x):
        raise ValueError(
            f"{type(block).__name__} of timm {timm.__version__} is not norm, attention, norm and MLP in turn"
        )
    _compared.add(kind)
    return attention.train(training), mlp.train(training)


_compared: set[tuple[type, ...]] = set()
"""Types of blocks, and of their parts, whose branches equal timm's forward pass."""

TOLERANCE = 1e-3
"""Largest accepted difference from timm, relative to the change that is compared.  Ours: far above rounding."""


def are_close(found: Tensor, expected: Tensor, change: Tensor) -> bool:
    """Return True if two results differ by rounding alone, measured by the largest entry of `change`.

    An absolute tolerance would accept anything from a block whose weights are small.
    """
    rounding = 8 * torch.finfo(expected.dtype).eps * expected.abs().max()
    return bool((found - expected).abs().max() <= TOLERANCE * change.abs().max() + rounding)


def _tokens(block: nn.Module) -> Tensor:
    """Return tokens that the block accepts, [2, 3, d], or [2, h, w, d] for a Swin block.

    They are small, so that rounding does not hide what the block adds to them; its norms undo the scale.
    """
    weight = next(block.get_submodule("norm1").parameters())  # [d]
    grid = cast(tuple[int, int], block.input_resolution) if isinstance(block, SwinTransformerBlock) else (3,)
    shape = (2, *grid, len(weight))
    return (
        torch.linspace(-1, 1, prod(shape), device=weight.device, dtype=weight.dtype)
        .mul(100)
        .sin()
        .mul(0.01)
        .view(shape)
    )


def _split(block: nn.Module) -> tuple[Branch, Branch]:
    if isinstance(block, SwinTransformerBlock):
        parts = block.norm1, block.drop_path1, block.norm2, block.mlp, block.drop_path2
        for name in ("norm1", "drop_path1", "norm2", "mlp", "drop_path2"):
            setattr(block, name, nn.Identity())
        norm1, drop_path1, norm2, mlp, drop_path2 = parts
        return (
            Branch(norm1, WindowAttention(block), nn.Identity(), drop_path1),
            Branch(norm2, mlp, nn.Identity(), drop_path2),
        )
    whole = cast(Block, block)
    return (
        Branch(whole.norm1, whole.attn, whole.ls1, whole.drop_path1),
        Branch(whole.norm2, whole.mlp, whole.ls2, whole.drop_path2),
    )


class OnPatchGrid(nn.Module):
    """Applies a zero-padded convolutional module to the patch tokens as a grid [b, c, height, width].

    Each prefix token is a 1 x 1 grid, so that only the centre weights act on it.

    keep_prefix: return prefix tokens unchanged.
    """

    def __init__(self, module: nn.Module, vit: VisionTransformer, keep_prefix: bool = False) -> None:
        super().__init__()
        self.module, self.prefix, self.keep_prefix = module, vit.num_prefix_tokens, keep_prefix
        self.grid = cast(tuple[int, int], vit.patch_embed.grid_size)

    def forward(self, x: Tensor) -> Tensor:  # [b, prefix + height * width, c]
        prefix, patches = x[:, : self.prefix], x[:, self.prefix :]
        if not self.keep_prefix:
            alone = prefix.flatten(0, 1)[..., None, None]  # [b * prefix, c, 1, 1]
            prefix = self.module(alone).reshape(prefix.shape)
        convolved = self.module(patches.transpose(1, 2).unflatten(2, self.grid))
        return torch.cat([prefix, convolved.flatten(2).transpose(1, 2)], dim=1)
