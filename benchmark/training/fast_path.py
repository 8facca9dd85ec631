"""What makes bf16 autocast fast on a type of device.  docs/speed.md has what each of these is worth, and why."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
