"""VQT, visual query tuning (Tu et al., CVPR 2023, arXiv:2212.03220): trained queries that read every block.

    z_l = Block_l(P_l; K(x_l), V(x_l)),   f = w_0 x^ + sum_{l,i} w_{l,i} z^_{l,i}   (^: at unit length)

The queries P_l: [tokens, d] attend to a block's keys and values without adding to them.  The model's own tokens stay
unchanged, and no gradient passes through them.  The queries' outputs are added to the features at unit length
(andytu28/VQT src/models/vit_backbones/h2t_vit.py:95-98, 283-300, 371-383).

The authors' head reads all outputs concatenated.  Here, as in OSU-MLB/ViT_PEFT_Vision (model/vqt.py), a trained
weighted sum keeps the features' width, so that every method has the same head.  The release of the latter sums tokens
other than the queries and normalises along another axis, so that its queries never learn; both are corrected here.

"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer, global_pool_nlc
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .attention import attend, check_attend_and_pooling
from .base import Method, Paper, method
from .vpt import initial_prompts


class QueriedBlocks(nn.Module):
    """Runs the blocks and the final norm, and for every block the queries that read it."""

    def __init__(self, vit: VisionTransformer, tokens: int, dropout: float) -> None:
        super().__init__()
        self.blocks, self.norm, self.dropout = vit.blocks, vit.norm, nn.Dropout(dropout)
        queries = initial_prompts(vit, len(vit.blocks) * tokens).unflatten(0, (-1, tokens))
        self.queries = nn.Parameter(queries)  # [blocks, tokens, d]

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d] -> [b, n + blocks * tokens, d]
        outputs = []
        for block, queries in zip(self.blocks, self.queries, strict=True):
            outputs.append(query_block(cast(Block, block), self.dropout(queries.expand(len(x), -1, -1)).to(x.dtype), x))
            x = block(x)
        return torch.cat([self.norm(x), *outputs], dim=1)


def query_block(block: Block, queries: Tensor, x: Tensor) -> Tensor:
    """Return the block's output for queries [b, tokens, d] that attend to x [b, n, d]."""
    answer = attend(block.attn, block.norm1(queries), block.norm1(x))
    queries = queries + block.drop_path1(block.ls1(answer))
    return queries + block.drop_path2(block.ls2(block.mlp(block.norm2(queries))))


class FeatureSum(nn.Module):
    """Trained weighted sum of the backbone's features and the queries' outputs, each at unit length."""

    def __init__(self, vit: VisionTransformer, outputs: int) -> None:
        super().__init__()
        self.norm, self.pool, self.prefix = vit.fc_norm, vit.global_pool, vit.num_prefix_tokens
        self.include_prefix = getattr(vit, "pool_include_prefix", False)  # missing in older versions of timm
        self.weights = nn.Parameter(torch.ones(1 + outputs))  # OSU-MLB model/vqt.py:23

    def forward(self, x: Tensor) -> Tensor:  # [b, n + outputs, d] -> [b, d]
        outputs = len(self.weights) - 1
        tokens, queried = x[:, :-outputs], x[:, -outputs:]
        own = self.norm(global_pool_nlc(tokens, self.pool, self.prefix, self.include_prefix))
        summands = F.normalize(torch.cat([own[:, None], queried], dim=1), dim=-1)
        return (summands * self.weights[:, None]).sum(1)


@method("vqt")
class VQT(Method):
    """Trains queries that read the tokens of every block, and adds their outputs to the model's features."""

    tokens: PositiveInt = 10
    """Queries per block."""
    dropout: Rate = 0.1
    """Dropout of the queries, as scripts/VQT/run_vqt_vtab.sh."""
    title = "VQT"
    paper = Paper("CVPR", 2023, "2212.03220", "andytu28/VQT")
    equation = r"f = w_0 \hat{x} + \sum_{l,i} w_{l,i} \hat{z}_{l,i}, \quad z_l = \mathrm{Block}_l(P_l;\ K(x_l), V(x_l))"
    targets = "parallel to every block"
    evidence = "paper only"
    differs = (
        "The head there reads the queries' outputs of all layers side by side; here it reads a learned sum, and "
        "each query is normalised by itself."
    )
    search = {"tokens": (1, 10)}  # the authors' README, and that of OSU-MLB/ViT_PEFT_Vision
    starts_as_identity = False

    def validate_backbone(self, vit: VisionTransformer) -> None:
        check_attend_and_pooling(vit)

    def inject(self, vit: VisionTransformer) -> None:
        vit.attn_pool = cast(Any, FeatureSum(vit, len(vit.blocks) * self.tokens))
        vit.pool_include_prefix = True  # `FeatureSum` separates the tokens itself
        vit.blocks = nn.Sequential(QueriedBlocks(vit, self.tokens, self.dropout))
        vit.norm, vit.fc_norm = nn.Identity(), nn.Identity()

    def expected_params(self, vit: VisionTransformer) -> int:
        outputs = len(vit.blocks) * self.tokens
        return outputs * vit.embed_dim + outputs + 1
