"""What makes a model fast and computes the same.  docs/speed.md has what each of these is worth, and why."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ...methods.anatomy import kind


def make_fast(vit: VisionTransformer, precision: str, device: str) -> None:
    """What the model of a cell goes through before it is trained or asked; it computes the same, but for rounding.

    precision: a recipe's.  device: a type of device.
    """
    end_at_the_class_token(vit)
    if precision == "bf16":
        ready_for_bf16(vit, device)


class ClassTokenBlock(Block):
    """The last block where the class token alone is read: past its attention the other tokens go nowhere.

    x: [b, n, d] -> [b, 1, d]
    """

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        x = x[:, :1]
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def end_at_the_class_token(vit: VisionTransformer) -> bool:
    """Let the last MLP compute the class token alone where no other is read; whether it is so now.

    A block that a method has replaced is left as it is; what it has put into a block's MLP branch sees each token by
    itself, as the contract says.  So is one that draws something for each token, whose draws would be others.
    """
    last = vit.blocks[-1] if kind(vit) == "vit" else None
    if type(last) is not Block or vit.global_pool != "token" or vit.attn_pool is not None:
        return False
    branch = nn.ModuleList([last.norm2, last.mlp, last.ls2, last.drop_path2])
    if any(isinstance(module, nn.Dropout) and module.p for module in branch.modules()):
        return False
    last.__class__ = ClassTokenBlock
    return True


class PatchProduct(nn.Conv2d):
    """A convolution whose windows lie side by side, as patch embeddings are, as one matrix product of all patches."""

    def forward(self, input: Tensor) -> Tensor:  # [b, c, h, w] -> [b, d, h / p, w / q]
        (p, q), (b, c, h, w) = self.kernel_size, input.shape
        rows, columns = h // p, w // q
        cut = input[..., : rows * p, : columns * q].reshape(b, c, rows, p, columns, q)
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(b, rows * columns, c * p * q)
        return F.linear(patches, self.weight.flatten(1), self.bias).transpose(1, 2).unflatten(2, (rows, columns))

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "PatchProduct":
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
                    setattr(module, name, PatchProduct.of(cast(nn.Conv2d, child)))


def _side_by_side(module: nn.Module) -> bool:
    """Whether it is a convolution that sees each pixel once."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == module.stride
        and module.kernel_size > (1, 1)
        and (module.padding, module.dilation, module.groups) == ((0, 0), (1, 1), 1)
    )
