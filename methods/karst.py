"""KARST (Zhu et al., ICASSP 2025, arXiv:2502.06779): sums of Kronecker products, and a rescaled attention and MLP.

    W' = W + (1 / r) sum_i C_i kron (B_i A_i^T),   o -> s_2 (W_o' (s_1 o + t_1)) + t_2,   fc2 -> s_3 fc2 + t_3

q, k and v have their own A_i and share B_i and C_i; each s and t is one number.  The released class cannot be built as
it stands; the numbers that we compare with come from it after completing its attributes (Lucenova/KARST
modules/kronecker_adaption.py:14-151).
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of, mlp_hidden, mlp_width
from .arguments import PositiveInt
from .base import Method, Paper, method
from .updates import Update, UpdatedLinear


def split(width: int, factor: int) -> tuple[int, int]:
    """Split a width into its small and its large Kronecker factor."""
    if width % factor:
        raise ValueError(f"factor={factor} must divide every width of the backbone, here {width}")
    return min(factor, width // factor), max(factor, width // factor)


class KroneckerSum(Update):
    """x -> sum_i (C_i kron B_i A_i^T) x / rank, for `parts` maps of the same input side by side."""

    def __init__(self, linear: nn.Linear, parts: int, rank: int, kernels: int, factor: int) -> None:
        super().__init__()
        (small_in, large_in), width = split(linear.in_features, factor), linear.out_features // parts
        small_out, large_out = split(width, factor)
        self.c = nn.Parameter(torch.empty(kernels, small_out, small_in))
        self.a = nn.Parameter(torch.empty(kernels, parts, rank, large_out))
        self.b = nn.Parameter(torch.zeros(kernels, large_in, rank))  # zero: initially the pretrained model
        for matrix in (*self.c, *self.a.flatten(0, 1)):
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))

    def delta(self) -> Tensor:
        large = torch.einsum("kpro,kir->kpoi", self.a, self.b) / self.b.shape[-1]
        outputs, inputs = self.a.shape[1] * self.c.shape[1] * self.a.shape[3], self.c.shape[2] * self.b.shape[1]
        return torch.einsum("kst,kpoi->psoti", self.c, large).reshape(outputs, inputs)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return F.linear(x, self.delta())


class Rescaled(nn.Module):
    """x -> s_2 linear(s_1 x + t_1) + t_2; without `before`, s_1 = 1 and t_1 = 0."""

    def __init__(self, linear: UpdatedLinear, before: bool) -> None:
        super().__init__()
        self.linear = linear
        self.before = nn.Parameter(torch.tensor([1.0, 0.0])) if before else None  # s_1, t_1
        self.after = nn.Parameter(torch.tensor([1.0, 0.0]))  # s_2, t_2

    def forward(self, x: Tensor) -> Tensor:
        if self.before is not None:
            x = x * self.before[0] + self.before[1]
        return self.linear(x) * self.after[0] + self.after[1]

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the equivalent plain linear map."""
        plain = self.linear.merged()
        bias = torch.zeros_like(plain.weight[:, 0]) if plain.bias is None else plain.bias
        if self.before is not None:
            bias = bias + self.before[1] * plain.weight.sum(1)
            plain.weight *= self.before[0]
        plain.weight *= self.after[0]
        plain.bias = nn.Parameter(bias * self.after[0] + self.after[1], requires_grad=False)
        return plain


@method("karst")
class KARST(Method):
    """Adds sums of Kronecker products to every linear map, and rescales the outputs of attention and MLP."""

    rank: PositiveInt = 8
    kernels: PositiveInt = 8
    factor: PositiveInt = 8
    """Width of the small Kronecker factors."""
    title = "KARST"
    paper = Paper("ICASSP", 2025, "2502.06779", "Lucenova/KARST")
    equation = r"W' = W + \tfrac{1}{r} \sum_i C_i \otimes B_i A_i^\top,\quad y \leftarrow s\,y + t"
    targets = "qkv, o, fc1, fc2"
    evidence = "authors' module"
    search = {"kernels": (4, 8)}  # ours
    differs = "The class is not built as released: its missing attributes are completed from its arguments."
    backbones = ("vit", "swin")

    def updated(self, module: nn.Module | Tensor, parts: int = 1) -> UpdatedLinear:
        linear = cast(nn.Linear, module)
        return UpdatedLinear(
            linear, ("all",), {"all": KroneckerSum(linear, parts, self.rank, self.kernels, self.factor)}
        )

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            attn, mlp = ref.block.get_submodule("attn"), ref.block.get_submodule("mlp")
            attn.qkv, attn.proj = self.updated(attn.qkv, parts=3), Rescaled(self.updated(attn.proj), before=True)
            mlp.fc1, mlp.fc2 = self.updated(mlp.fc1), Rescaled(self.updated(mlp.fc2), before=False)

    def merge(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            for path, name in (("attn", "qkv"), ("attn", "proj"), ("mlp", "fc1"), ("mlp", "fc2")):
                parent = ref.block.get_submodule(path)
                setattr(parent, name, cast(UpdatedLinear | Rescaled, getattr(parent, name)).merged())

    def expected_params(self, vit: VisionTransformer) -> int:
        total = 0
        for ref in blocks_of(vit):
            d, wide, hidden = ref.width, mlp_width(ref.block), mlp_hidden(ref.block)
            for inputs, width, parts in ((d, d, 3), (d, d, 1), (d, wide, 1), (hidden, d, 1)):
                (small_in, large_in), (small_out, large_out) = split(inputs, self.factor), split(width, self.factor)
                total += self.kernels * (small_in * small_out + self.rank * (parts * large_out + large_in))
            total += 6
        return total
