"""KAdaptation (He et al., AAAI 2023, arXiv:2203.16329): updates that are sums of Kronecker products.

    W' = W + s (sum_i (l_i r_i^T) kron (u_i v_i^T))^T,   b' = b + b_l

Four errors of eric-ai-lab/PEViT vision_benchmark/evaluation/model.py are corrected.  There all u_i and v_i are
initially zero (lines 536-539), so that neither ever gets a gradient.  The value's update uses the query's factors
(line 580).  Updates [n, b, d] are reshaped to [b * heads, n, d / heads] without moving axes (lines 796-799), which
mixes the images of a batch.  The query, and not its update, is divided by sqrt(d / heads) (line 787).
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Paper, method
from .updates import LinearUpdateMethod, Update, UpdatedLinear


class Rule(nn.Module):
    """n rank-one matrices l_i r_i^T, the left factors of the Kronecker products, shared by all layers."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.empty(n, n).uniform_(-0.01, 0.01))  # model.py:987-999
        self.right = nn.Parameter(torch.empty(n, n).uniform_(-0.01, 0.01))


class KroneckerSum(Update):
    """x -> scale * drop(H)^T x + b, where H = sum_i (l_i r_i^T) kron (u_i v_i^T) is [inputs, outputs]."""

    def __init__(self, rule: Rule, bias: nn.Parameter, inputs: int, scale: float, dropout: float) -> None:
        super().__init__()
        n, outputs = len(rule.left), len(bias)
        bound = math.sqrt(2) * math.sqrt(6 / (1 + outputs // n))  # Glorot with gain sqrt(2): model.py:419-420
        self.rule, self.bias, self.scale, self.dropout = rule, bias, scale, nn.Dropout(dropout)
        self.u = nn.Parameter(torch.zeros(n, inputs // n))  # zero: initially the pretrained model
        self.v = nn.Parameter(torch.empty(n, outputs // n).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return F.linear(x, self.dropout(self.delta()), self.bias)

    def delta(self) -> Tensor:
        # (l r^T) kron (u v^T) = (l kron u) (r kron v)^T, so the sum is a product of rank n
        return _kron_rows(self.rule.right, self.v).T @ _kron_rows(self.rule.left, self.u) * self.scale

    def bias_delta(self) -> Tensor:
        return self.bias


def _kron_rows(left: Tensor, right: Tensor) -> Tensor:
    """Return the Kronecker product of each row of [n, a] with the same row of [n, b], [n, a b]."""
    return (left[:, :, None] * right[:, None, :]).flatten(1)


@method("kadaptation")
class KAdaptation(LinearUpdateMethod):
    """Adds a sum of Kronecker products to query and value; all layers share the left factors."""

    terms: PositiveInt = 32
    scale: float = 160.0  # 128 / 4 * 5: model.py:477-479,564
    dropout: Rate = 0.5  # of the entries of H: model.py:516
    title = "KAdaptation"
    paper = Paper("AAAI", 2023, "2203.16329", "eric-ai-lab/PEViT")
    equation = r"W' = W + s \Big(\sum_i (l_i r_i^\top) \otimes (u_i v_i^\top)\Big)^\top,\ b' = b + b_l"
    targets = "q, v"
    evidence = "authors' module"
    differs = (
        "There the Kronecker factors start at zero and never learn, the value uses the query's factors, the query's "
        "update is not divided by the root of the head's width, and updates mix the images of a batch."
    )
    search = {"scale": (16.0, 160.0, 1600.0)}  # ours
    sites = "qv"

    def inject(self, vit: VisionTransformer) -> None:
        d = vit.embed_dim
        if d % self.terms:
            raise ValueError(f"terms={self.terms} must divide the width of the backbone, {d}")
        rules = {site: Rule(self.terms) for site in ("q", "v")}
        for block in vit.blocks:
            attention = block.get_submodule("attn")
            bias = nn.Parameter(torch.zeros(d))  # shared by q and v: model.py:584
            updates = {site: KroneckerSum(rule, bias, d, self.scale, self.dropout) for site, rule in rules.items()}
            attention.qkv = UpdatedLinear(cast(nn.Linear, attention.qkv), ("q", "k", "v"), updates)

    def expected_params(self, vit: VisionTransformer) -> int:
        factors, biases = 4 * vit.embed_dim, vit.embed_dim
        return 4 * self.terms**2 + len(vit.blocks) * (factors + biases)
