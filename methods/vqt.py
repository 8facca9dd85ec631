"""VQT, visual query tuning (Tu et al., CVPR 2023, arXiv:2212.03220): learned tokens that ask every layer.

They are queries of a block's attention and neither its keys nor its values, so that the model's own tokens stay as they
are and no gradient has to pass through them.  What the queries have become behind the block goes into the features, at
unit length (andytu28/VQT src/models/vit_backbones/h2t_vit.py:95-98, 283-300, 371-383).

The authors' head reads all outputs side by side; here, as in OSU-MLB/ViT_PEFT_Vision (model/vqt.py), a learned sum
keeps the features' width, so that the head is that of every method.  As released that code sums other tokens than the
queries and normalises along another axis, so that the queries never learn; this is what it means to do.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer, global_pool_nlc
from torch import Tensor, nn

from .base import Method, Paper, register, require_positive
from .vpt import initial_prompts


class QueriedBlocks(nn.Module):
    """Runs the blocks, the norm behind them, and beside every block the queries that ask it."""

    def __init__(self, vit: VisionTransformer, tokens: int, dropout: float) -> None:
        super().__init__()
        self.blocks, self.norm, self.dropout = vit.blocks, vit.norm, nn.Dropout(dropout)
        queries = initial_prompts(vit, len(vit.blocks) * tokens).unflatten(0, (-1, tokens))
        self.queries = nn.Parameter(queries)  # [blocks, tokens, d]

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d] -> [b, n + blocks * tokens, d]
        outputs = []
        for block, queries in zip(self.blocks, self.queries, strict=True):
            outputs.append(ask(cast(Block, block), self.dropout(queries.expand(len(x), -1, -1)).to(x.dtype), x))
            x = block(x)
        return torch.cat([self.norm(x), *outputs], dim=1)


def ask(block: Block, queries: Tensor, x: Tensor) -> Tensor:
    """What the block makes of the queries [b, tokens, d] when they attend to x [b, n, d]."""
    answer = attend(block.attn, block.norm1(queries), block.norm1(x))
    queries = queries + block.drop_path1(block.ls1(answer))
    return queries + block.drop_path2(block.ls2(block.mlp(block.norm2(queries))))


def attend(attention: Any, queries: Tensor, x: Tensor) -> Tensor:
    """timm's `Attention`, by the queries [b, tokens, d] to x [b, n, d]."""
    width, bias = attention.qkv.out_features // 3, attention.qkv.bias
    w_q, w_kv = attention.qkv.weight.split([width, 2 * width])
    b_q, b_kv = (None, None) if bias is None else bias.split([width, 2 * width])
    q = F.linear(queries, w_q, b_q).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # [b, heads, tokens, -1]
    k, v = F.linear(x, w_kv, b_kv).unflatten(-1, (2, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    read = F.scaled_dot_product_attention(attention.q_norm(q), attention.k_norm(k), v)
    norm = getattr(attention, "norm", nn.Identity())  # not every version of timm has it
    return attention.proj_drop(attention.proj(norm(read.transpose(1, 2).flatten(2))))


class FeatureSum(nn.Module):
    """The backbone's own features and what the queries brought, at unit length, in a learned sum."""

    def __init__(self, vit: VisionTransformer, outputs: int) -> None:
        super().__init__()
        self.norm, self.pool, self.prefix = vit.fc_norm, vit.global_pool, vit.num_prefix_tokens
        self.include_prefix = getattr(vit, "pool_include_prefix", False)  # not every version of timm has it
        self.weights = nn.Parameter(torch.ones(1 + outputs))  # OSU-MLB model/vqt.py:23

    def forward(self, x: Tensor) -> Tensor:  # [b, n + outputs, d] -> [b, d]
        outputs = len(self.weights) - 1
        tokens, brought = x[:, :-outputs], x[:, -outputs:]
        own = self.norm(global_pool_nlc(tokens, self.pool, self.prefix, self.include_prefix))
        summands = F.normalize(torch.cat([own[:, None], brought], dim=1), dim=-1)
        return (summands * self.weights[:, None]).sum(1)


@register("vqt")
@dataclass(frozen=True)
class VQT(Method):
    """Learned queries that read the tokens of every block, added up with the model's own features."""

    tokens: int = 10
    """Queries per block."""
    dropout: float = 0.1
    """Of the queries, scripts/VQT/run_vqt_vtab.sh."""
    title = "VQT"
    paper = Paper("CVPR", 2023, "2212.03220", "andytu28/VQT")
    equation = r"f = w_0 \hat{x} + \sum_{l,i} w_{l,i} \hat{z}_{l,i}, \quad z_l = \mathrm{Block}_l(P_l;\ K(x_l), V(x_l))"
    places = "beside every block"
    evidence = "paper only"
    search = {"tokens": (1, 10)}  # the authors' README; that of OSU-MLB/ViT_PEFT_Vision
    starts_as_identity = False

    def __post_init__(self) -> None:
        require_positive(tokens=self.tokens)

    def inject(self, vit: VisionTransformer) -> None:
        if vit.attn_pool is not None:
            raise ValueError(
                "vqt adds to features that are a class token or a mean, and this backbone pools by attention"
            )
        vit.attn_pool = cast(Any, FeatureSum(vit, len(vit.blocks) * self.tokens))
        vit.pool_include_prefix = True  # the sum cuts the tokens itself
        vit.blocks = nn.Sequential(QueriedBlocks(vit, self.tokens, self.dropout))
        vit.norm, vit.fc_norm = nn.Identity(), nn.Identity()

    def expected_params(self, vit: VisionTransformer) -> int:
        outputs = len(vit.blocks) * self.tokens
        return outputs * vit.embed_dim + outputs + 1
