"""CVPT, cross visual prompt tuning (Huang et al., ICCV 2025, arXiv:2408.14961): tokens read prompts by cross-attention.

    x -> x + Attn(LN(x));  x -> x + Attn(q(x); k(P), v(P));  x -> x + MLP(LN(x))

The cross-attention has the frozen weights of the block's own attention, without a norm for tokens or prompts and
without drop path.  The prompts have no queries, so the sequence keeps its length (Lingyun0419/CVPT CVPT.py:188-402).
"""

from typing import Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .attention import attend, check_attend
from .base import Method, Paper, method
from .blocks import branches

Position = Literal["before", "between", "after"]


class CrossPrompted(nn.Module):
    """A block with x -> x + attention(queries x; keys and values of the prompts) at one position."""

    def __init__(self, block: nn.Module, prompts: Tensor, position: Position, dropout: float) -> None:
        super().__init__()
        self.attention, self.mlp = branches(block)
        self.prompts, self.dropout = nn.Parameter(prompts), nn.Dropout(dropout)  # [tokens, d]
        self.position: Position = position

    def read(self, x: Tensor) -> Tensor:
        return x + attend(self.attention.inner, x, self.dropout(self.prompts.expand(len(x), -1, -1)))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        x = self.attention(self.read(x) if self.position == "before" else x)
        x = self.mlp(self.read(x) if self.position == "between" else x)
        return self.read(x) if self.position == "after" else x


@method("cvpt")
class CVPT(Method):
    """Lets the tokens of every block read trained prompts by cross-attention with the block's frozen weights."""

    tokens: PositiveInt = 10
    position: Position = "between"
    """Place of the cross-attention: before the attention, between it and the MLP, or after the MLP."""
    dropout: Rate = 0.1
    title = "CVPT"
    paper = Paper("ICCV", 2025, "2408.14961", "Lingyun0419/CVPT")
    equation = r"x \leftarrow x + \mathrm{Attn}(q(x);\ k(P_l), v(P_l)) \text{ between attention and MLP}"
    targets = "between attention and MLP of every block"
    evidence = "authors' training"
    search = {"tokens": (1, 10, 50, 100, 200)}  # the range of the released configurations
    starts_as_identity = False

    def validate_backbone(self, vit: VisionTransformer) -> None:
        check_attend(vit)

    def inject(self, vit: VisionTransformer) -> None:
        prompts = nn.init.xavier_uniform_(torch.empty(len(vit.blocks), self.tokens, vit.embed_dim))  # of all blocks
        for i, block in enumerate(vit.blocks):
            vit.blocks[i] = CrossPrompted(block, prompts[i].clone(), self.position, self.dropout)

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * self.tokens * vit.embed_dim
