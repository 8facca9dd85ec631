"""SynQT (Zhang et al., ECCV 2024, arXiv:2407.06964): synthesised queries that read every frozen block.

    p_l = QSM_l(F_l(q_l + s mean p_{l-1})),   p_l -> p_l + Attn(q(p_l); k(x_l), v(x_l)),   p_l -> p_l + MLP(LN(p_l))
    y = LN(mean_j w_j f_j),   f: p_L, then p_l and both summands of p_l in every block, averaged over the queries

The queries read the image tokens, which never see them, with the block's frozen weights.  QSM is a small attention
between the queries.  The weights w are computed from p_L (taolinzhang/SynQT synqt.py).  Parameters of the release that
no output depends on are left out.
"""

from typing import Any, cast

import torch
from timm.layers.drop import DropPath
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .anatomy import final_norm
from .arguments import PositiveInt, Rate
from .attention import attend, check_attend_and_pooling
from .base import Method, Paper, method
from .blocks import First

SMALL, LARGE = 8, 48
"""Widths of the bottlenecks in and outside the attention between queries."""
DROP_PATH = 0.3


class Refined(nn.Module):
    """z -> z + drop(Up(drop(gelu(Down(z)))))."""

    def __init__(self, d: int, bottleneck: int, dropout: float) -> None:
        super().__init__()
        self.down, self.up, self.dropout = nn.Linear(d, bottleneck), nn.Linear(bottleneck, d), nn.Dropout(dropout)

    def forward(self, z: Tensor) -> Tensor:  # [b, n, d]
        return z + self.dropout(self.up(self.dropout(nn.functional.gelu(self.down(z)))))


class Synthesis(nn.Module):
    """The query synthesis block: a single-head attention between the queries, and a bottleneck."""

    def __init__(self, d: int, attn_scale: float, ffn_scale: float, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.q_norm, self.kv_norm = (nn.LayerNorm(d) for _ in range(4))
        self.q, self.k, self.v, self.proj = (Refined(d, SMALL, 0.0) for _ in range(4))
        self.mlp, self.dropout = Refined(d, LARGE, dropout), nn.Dropout(dropout)
        self.attn_scale, self.ffn_scale = (nn.Parameter(torch.full((1,), s)) for s in (attn_scale, ffn_scale))

    def forward(self, p: Tensor) -> Tensor:  # [b, tokens, d]
        z = self.norm1(p)
        q, kv = self.q(self.q_norm(z)), self.kv_norm(z)
        scores = q @ self.k(kv).transpose(-2, -1) * p.shape[-1] ** -0.5
        read = self.proj(self.dropout(scores.softmax(-1)) @ self.v(kv))
        p = p + self.dropout(read) * self.attn_scale
        return p + self.mlp(self.norm2(p)) * self.ffn_scale


class SynthesisedQueries(nn.Module):
    """Runs the blocks and the queries that read them; returns one combined feature, [b, 1, d]."""

    def __init__(self, vit: VisionTransformer, tokens: int, scales: tuple[float, float, float], dropout: float) -> None:
        super().__init__()
        d, depth, norm = vit.embed_dim, len(vit.blocks), cast(nn.LayerNorm, getattr(vit, final_norm(vit)))
        self.blocks, self.dropout, self.drop_path = vit.blocks, nn.Dropout(dropout), DropPath(DROP_PATH)
        self.queries = nn.Parameter(torch.empty(depth, tokens, d).uniform_(-1, 1))
        self.refine = nn.ModuleList(Refined(d, LARGE, dropout) for _ in range(depth))
        self.synthesis = nn.ModuleList(Synthesis(d, *scales[:2], dropout) for _ in range(depth))
        self.feat_scale = nn.Parameter(torch.full((1,), scales[2]))
        self.out_norm, self.mlp = nn.LayerNorm(d), Refined(d, LARGE, dropout)
        self.weigh, self.head_norm = nn.Linear(d, 3 * depth), nn.LayerNorm(d)
        with torch.no_grad():
            self.head_norm.weight.copy_(norm.weight)
            self.head_norm.bias.copy_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        outputs: list[Tensor] = []
        summands: tuple[list[Tensor], list[Tensor]] = [], []
        for i, module in enumerate(self.blocks):
            block, p = cast(Block, module), self.queries[i].expand(len(x), -1, -1)
            if outputs:
                p = p + outputs[-1] * self.feat_scale
            p = self.dropout(self.synthesis[i](self.refine[i](p)))
            read = block.drop_path1(block.ls1(attend(block.attn, block.norm1(p), block.norm1(x))))
            p = p + read
            hidden = block.drop_path2(block.ls2(block.mlp(block.norm2(p))))
            x = block(x)
            outputs.append((p + hidden).mean(1, keepdim=True))
            for kind, summand in zip(summands, (read, hidden), strict=True):
                kind.append(summand.mean(1, keepdim=True))
        return self.combine(torch.cat([outputs[-1], *outputs, *summands[0], *summands[1]], dim=1))

    def combine(self, features: Tensor) -> Tensor:
        """Return the norm of the weighted mean of features [b, 3 blocks + 1, d], as [b, 1, d]."""
        features = features + self.mlp(self.out_norm(features))
        first, rest = features[:, 0], features[:, 1:]
        rest = self.drop_path(rest.flatten(0, 1)).unflatten(0, rest.shape[:2])
        weights = self.dropout(nn.functional.gelu(self.weigh(first))).tanh()
        mean = (first + (weights[..., None] * rest).sum(1)) / features.shape[1]
        return self.head_norm(mean)[:, None]


@method("synqt")
class SynQT(Method):
    """Synthesises queries in a small network, which read every frozen block, and combines what they read."""

    tokens: PositiveInt = 4
    attn_scale: float = 1.0
    ffn_scale: float = 0.1
    feat_scale: float = 0.1
    """Initial values of three trained factors, from configs/vit_21k for CIFAR-100; other tasks have other values."""
    dropout: Rate = 0.1
    title = "SynQT"
    paper = Paper("ECCV", 2024, "2407.06964", "taolinzhang/SynQT")
    equation = (
        r"y = \mathrm{LN}\big(\mathrm{mean}_j\, w_j f_j\big),"
        r"\ p_l \leftarrow \mathrm{Block}_l(\mathrm{QSM}_l(p);\ K(x_l), V(x_l))"
    )
    targets = "beside every block"
    evidence = "authors' module"
    differs = "Parameters of the release on which no output depends (18,469 on ViT-B/16) are left out."
    search = {"tokens": (1, 4, 16), "attn_scale": (0.1, 1.0)}  # the values of the released configurations
    starts_as_identity = False

    def validate_backbone(self, vit: VisionTransformer) -> None:
        check_attend_and_pooling(vit)

    def inject(self, vit: VisionTransformer) -> None:
        scales = self.attn_scale, self.ffn_scale, self.feat_scale
        vit.blocks = nn.Sequential(SynthesisedQueries(vit, self.tokens, scales, self.dropout))
        vit.attn_pool, vit.pool_include_prefix = cast(Any, First()), True
        vit.norm, vit.fc_norm = nn.Identity(), nn.Identity()

    def expected_params(self, vit: VisionTransformer) -> int:
        d, depth = vit.embed_dim, len(vit.blocks)
        small, large = (2 * width * d + width + d for width in (SMALL, LARGE))
        each = self.tokens * d + 2 * large + 4 * small + 8 * d + 2
        return depth * each + 1 + large + 4 * d + 3 * depth * (d + 1)
