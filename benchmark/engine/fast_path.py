"""Faster modules that compute the same as timm's, up to rounding.  docs/speed.md has their gains.

`ClassTokenAttention` and `ClassTokenBlock` repeat the forward passes of timm's `Attention` and `Block`.  They were
compared with timm 1.0.26 to 1.0.31, and are compared with the installed timm each time they are used.
"""

import warnings
from typing import Any, TypeGuard, TypeVar, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ...methods.anatomy import VisionModel

M = TypeVar("M", bound=nn.Module)

TOLERANCE = 1e-3
"""Largest accepted difference of features, relative to the largest feature.  Ours: 100 times the rounding of fp32."""
MOVE = 0.05
"""Standard deviation of what is added to trainable tensors for the comparison with timm (ours, as for tiny models)."""


def make_fast(vit: VisionModel, precision: str, device: str) -> None:
    """Replace modules of an injected backbone by faster ones; the names of its tensors stay the same.

    precision: of the recipe, "bf16" or "fp32".  device: type of the device that will run the model.
    """
    prune_last_block_to_cls(vit)
    if precision == "bf16":
        prepare_for_bf16(vit, device)


class ClassTokenAttention(Attention):
    """timm's `Attention` with the class token as the only query.  [b, n, d] -> [b, 1, d]"""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        _take_over(self, attention)
        self.num_heads, self.head_dim, self.scale = attention.num_heads, attention.head_dim, attention.scale

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q[:, :, :1]), self.k_norm(k)
        weights = (self.scale * (q * k).sum(dim=-1, dtype=x.dtype)).softmax(dim=-1)  # [b, heads, n]
        attended = (weights.unsqueeze(-1) * v).sum(dim=-2)  # [b, heads, head_dim]
        return self.proj_drop(self.proj(self.norm(attended.flatten(1).unsqueeze(1))))


class ClassTokenBlock(Block):
    """timm's `Block` with the class token as its only output.  [b, n, d] -> [b, 1, d]"""

    def __init__(self, block: Block) -> None:
        nn.Module.__init__(self)
        _take_over(self, block)
        self.attn = ClassTokenAttention(cast(Attention, block.attn))

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x = x[:, :1] + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def _take_over(new: nn.Module, old: nn.Module) -> None:
    """Give `new` the submodules and tensors of `old`, under the same names and in the same order."""
    for name in ("_parameters", "_buffers", "_modules"):
        getattr(new, name).update(getattr(old, name))


def prune_last_block_to_cls(vit: VisionModel) -> bool:
    """Compute only the class token in the last block, if pooling reads only that token.  Returns True if applied.

    The block stays as it is in these cases: a method has replaced the block, its attention or their `forward`, or hooks
    it; dropout behind the queries, keys and values would draw other random numbers; the result differs from timm's
    (with a warning), as where a module that a method has added there reads several tokens.
    """
    if not isinstance(vit, VisionTransformer):
        return False
    last = vit.blocks[-1]
    if not _is_exactly(last, Block) or vit.global_pool != "token" or vit.attn_pool is not None:
        return False
    attention = last.attn
    if not _is_exactly(attention, Attention) or getattr(attention, "gate", None) is not None:
        return False
    behind_qkv = {*last.modules()} - {*last.norm1.modules()} - {*attention.qkv.modules()}
    if any(isinstance(module, nn.Dropout) and module.p for module in behind_qkv):
        return False
    pruned = ClassTokenBlock(last)
    difference = _difference_from_timm(vit, last, pruned)
    if not difference <= TOLERANCE:  # also if it is not a number
        warnings.warn(
            f"timm {timm.__version__}, or a module of the method that reads several tokens, computes the last block in "
            f"another way than our shortcut (relative difference {difference:.1e}); the shortcut is not used, which "
            "costs some speed",
            stacklevel=2,
        )
        return False
    vit.blocks[-1] = pruned.train(vit.training)
    return True


def _is_exactly(module: nn.Module, kind: type[M]) -> TypeGuard[M]:
    """Return True if a module computes what its class does, without hooks and without a `forward` of its own."""
    hooked = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return type(module) is kind and "forward" not in vars(module) and not any(hooked)


@torch.no_grad()
def _difference_from_timm(vit: VisionTransformer, last: nn.Module, pruned: nn.Module) -> float:
    """Compare the features of two images with one block, the last or the pruned one, through timm's forward pass.

    Other blocks are left out, so that the check costs little.  Trainable tensors are moved meanwhile, because what a
    method adds has initially no effect.
    """
    parameter, generator = next(vit.parameters()), torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *cast(Any, vit.patch_embed).img_size, generator=generator)
    images = images.to(parameter.device, parameter.dtype)
    blocks, training = vit.blocks, vit.training
    initial = {p: p.detach().clone() for p in last.parameters() if p.requires_grad}
    features = []
    try:
        vit.eval()
        for trained in initial:
            trained += MOVE * torch.randn(trained.shape, generator=generator).to(trained)
        for block in (last, pruned):
            vit.blocks = nn.Sequential(block.eval())
            features.append(vit(images))
    finally:
        vit.blocks = blocks
        vit.train(training)
        for trained, value in initial.items():
            trained.copy_(value)
    expected, found = features
    return float((found - expected).abs().max() / expected.abs().max())


class PatchEmbedLinear(nn.Conv2d):
    """A convolution whose stride equals its kernel, as in patch embeddings, computed as one matrix product."""

    def forward(self, input: Tensor) -> Tensor:  # [b, c, h, w] -> [b, d, h / p, w / q]
        (p, q), (h, w) = self.kernel_size, input.shape[-2:]
        patches = patchify(input, p, q)
        return F.linear(patches, self.weight.flatten(1), self.bias).transpose(1, 2).unflatten(2, (h // p, w // q))

    @classmethod
    def from_conv(cls, conv: nn.Conv2d) -> "PatchEmbedLinear":
        """Return the same convolution with the same parameters."""
        sides = cast(tuple[int, int], conv.kernel_size)
        made = cls(conv.in_channels, conv.out_channels, sides, sides, bias=conv.bias is not None, device="meta")
        made.weight, made.bias = conv.weight, conv.bias
        return made.train(conv.training)


def patchify(images: Tensor, p: int, q: int) -> Tensor:
    """Cut images into patches; pixels beyond the last whole patch are dropped.  [b, c, h, w] -> [b, n, c * p * q]"""
    b, c, h, w = images.shape
    rows, columns = h // p, w // q
    cropped = images[..., : rows * p, : columns * q].reshape(b, c, rows, p, columns, q)
    return cropped.permute(0, 2, 4, 1, 3, 5).reshape(b, rows * columns, c * p * q)


def prepare_for_bf16(vit: nn.Module, device: str) -> None:
    """Make `vit` fast under bf16 autocast on a type of device.

    Frozen linear layers and convolutions are stored in bf16, so that only trainable tensors are cast.  On a GPU the
    patch embedding becomes a matrix product, because cuDNN runs it at a tenth of that rate.  On a CPU attention uses
    timm's plain steps, because torch's fused kernel takes more than twice as long.
    """
    for module in list(vit.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(torch.bfloat16)
        if device == "cpu" and hasattr(module, "fused_attn"):
            cast(Any, module).fused_attn = False
        if device == "cuda":
            for name, child in module.named_children():
                if _is_patch_embedding(child):
                    setattr(module, name, PatchEmbedLinear.from_conv(cast(nn.Conv2d, child)))


def _is_patch_embedding(module: nn.Module) -> bool:
    """Return True for a convolution that reads each pixel exactly once."""
    return (
        _is_exactly(module, nn.Conv2d)
        and module.kernel_size == module.stride
        and module.kernel_size > (1, 1)
        and (module.padding, module.dilation, module.groups) == ((0, 0), (1, 1), 1)
    )
