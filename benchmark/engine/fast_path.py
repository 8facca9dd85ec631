"""What makes a model fast and computes the same.  docs/speed.md has what each of these is worth, and why."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ...methods.anatomy import backbone_family


def make_fast(vit: VisionTransformer, precision: str, device: str) -> None:
    """What the model of a cell goes through before it is trained or asked; it computes the same, but for rounding.

    precision: a recipe's.  device: a type of device.
    """
    prune_last_block_to_cls(vit)
    if precision == "bf16":
        ready_for_bf16(vit, device)


class ClassTokenAttention(Attention):
    """Attention in which the class token alone asks: [b, n, d] -> [b, 1, d]"""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q[:, :, :1]), self.k_norm(k)
        weights = (self.scale * (q * k).sum(dim=-1, dtype=x.dtype)).softmax(dim=-1)  # [b, heads, n]
        answer = (weights.unsqueeze(-1) * v).sum(dim=-2)
        return self.proj_drop(self.proj(self.norm(answer.flatten(1).unsqueeze(1))))


class ClassTokenBlock(Block):
    """The last block where the class token alone is read: [b, n, d] -> [b, 1, d]"""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x = x[:, :1] + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def prune_last_block_to_cls(vit: VisionTransformer) -> bool:
    """Let the last block compute the class token alone where no other is read; whether it does so now.

    It stays as it is if a method has replaced it or its attention, or if something behind its queries, keys and values
    draws for each token: the draws would be others.  All else that methods put there sees each token by itself, as the
    contract says.
    """
    last = vit.blocks[-1] if backbone_family(vit) == "vit" else None
    if type(last) is not Block or vit.global_pool != "token" or vit.attn_pool is not None:
        return False
    attention = last.attn
    if type(attention) is not Attention or getattr(attention, "gate", None) is not None:
        return False
    behind = {*last.modules()} - {*last.norm1.modules()} - {*attention.qkv.modules()}
    if any(isinstance(module, nn.Dropout) and module.p for module in behind):
        return False
    attention.__class__, last.__class__ = ClassTokenAttention, ClassTokenBlock
    return True


class PatchEmbedLinear(nn.Conv2d):
    """A convolution whose windows lie side by side, as patch embeddings are, as one matrix product of all patches."""

    def forward(self, input: Tensor) -> Tensor:  # [b, c, h, w] -> [b, d, h / p, w / q]
        (p, q), (b, c, h, w) = self.kernel_size, input.shape
        rows, columns = h // p, w // q
        cut = input[..., : rows * p, : columns * q].reshape(b, c, rows, p, columns, q)
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(b, rows * columns, c * p * q)
        return F.linear(patches, self.weight.flatten(1), self.bias).transpose(1, 2).unflatten(2, (rows, columns))

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "PatchEmbedLinear":
        """With the same parameters."""
        sides = cast(tuple[int, int], conv.kernel_size)
        made = cls(conv.in_channels, conv.out_channels, sides, sides, bias=conv.bias is not None, device="meta")
        made.weight, made.bias = conv.weight, conv.bias
        return made.train(conv.training)


def ready_for_bf16(vit: nn.Module, device: str) -> None:
    """Make `vit` fast under bf16 autocast on a type of device; it computes the same, but for rounding.

    Frozen linear maps and convolutions are kept in bf16, so that casts touch only what is trained.  On a GPU a patch
    embedding is a matrix product: cuDNN takes a tenth of its rate for it.  On a CPU attention is taken in timm's plain
    steps: torch's fused kernel takes more than twice as long there.
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
                if _side_by_side(child):
                    setattr(module, name, PatchEmbedLinear.of(cast(nn.Conv2d, child)))


def _side_by_side(module: nn.Module) -> bool:
    """Whether it is a convolution that sees each pixel once."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == module.stride
        and module.kernel_size > (1, 1)
        and (module.padding, module.dilation, module.groups) == ((0, 0), (1, 1), 1)
    )
