"""Compacter (Mahabadi et al., NeurIPS 2021, arXiv:2106.04647): adapters of parameterised hypercomplex maps.

    A(h) = gelu(h H_d + b_d) H_u + b_u,   H = sum_i R_i kron (L_i Q_i),   R_i: [n, n], L_i Q_i of low rank

All maps of all blocks share the rule R.  The adapters stand behind attention and MLP, as those of Houlsby et al.; the
release is for T5 (rabeehk/compacter seq2seq/hypercomplex/layers.py, seq2seq/adapters/adapter_modeling.py:51-104).
"""

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .adapters import adapt_output
from .anatomy import blocks_of
from .arguments import PositiveInt
from .base import Method, Paper, method


class HypercomplexLinear(nn.Module):
    """x -> x H + b, where H = sum_i rule_i kron (left_i right_i) is [inputs, outputs]."""

    def __init__(self, rule: nn.Parameter, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        n = len(rule)
        if inputs % n or outputs % n:
            raise ValueError(f"terms={n} must divide the widths of each map, here {inputs} and {outputs}")
        self.rule = rule  # [n, n, n]
        self.left = nn.Parameter(torch.empty(n, inputs // n, rank))
        self.right = nn.Parameter(torch.empty(n, rank, outputs // n))
        self.bias = nn.Parameter(torch.zeros(outputs))
        for matrix in (*self.left, *self.right):
            nn.init.xavier_uniform_(matrix, gain=math.sqrt(2))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        product = torch.einsum("kab,kio->aibo", self.rule, self.left @ self.right)
        return x @ product.flatten(2).flatten(0, 1) + self.bias


@method("compacter")
class Compacter(Method):
    """Adds adapters of Kronecker products to the outputs of both branches; all of them share small matrices."""

    bottleneck: PositiveInt = 32
    terms: PositiveInt = 4
    """Kronecker products in a map, and the width of their shared factors."""
    rank: PositiveInt = 1
    title = "Compacter"
    paper = Paper("NeurIPS", 2021, "2106.04647", "rabeehk/compacter")
    equation = r"x \leftarrow x + h + A(h),\ A(h) = H_u\,\mathrm{GELU}(H_d h),\ H = \sum_i R_i \otimes L_i Q_i"
    targets = "after attention, after the MLP"
    evidence = "authors' module"
    differs = "The release is for T5, and also trains LayerNorms."
    search = {"bottleneck": (16, 32, 64)}  # ours
    starts_as_identity = False  # the shared matrices are initially normal, with the release's deviation of 1e-4
    backbones = ("vit", "swin")

    def inject(self, vit: VisionTransformer) -> None:
        rule = nn.Parameter(torch.randn(self.terms, self.terms, self.terms) * 1e-4)
        for ref in blocks_of(vit):
            for branch in (1, 2):
                down = HypercomplexLinear(rule, ref.width, self.bottleneck, self.rank)
                up = HypercomplexLinear(rule, self.bottleneck, ref.width, self.rank)
                adapt_output(ref.block, branch, nn.Sequential(down, nn.GELU("tanh"), up))

    def expected_params(self, vit: VisionTransformer) -> int:
        r, rank = self.bottleneck, self.rank
        return self.terms**3 + sum(2 * (2 * rank * (ref.width + r) + r + ref.width) for ref in blocks_of(vit))
