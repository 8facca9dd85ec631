"""E2VPT (Han et al., ICCV 2023, arXiv:2307.13770): prompts before every block, and prompts for keys and values.

    Attn(x) = softmax(q(x) [E, k(x)]^T / sqrt(d_h)) [E, v(x)],   E: [heads, tokens, d_h]

The key-value prompts are not projected, have no queries, and are the same array for keys and values
(ChengHan111/E2VPT src/models/vit_backbones/vit_changeVK.py).  The released VTAB commands train without the pruning
masks of the paper's second stage, and so do we.
"""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .attention import attend, check_attend
from .base import Method, Paper, method
from .vpt import FreePrompts, PromptedBlock, initial_prompts


class KeyValuePrompted(nn.Module):
    """An attention with trained additional keys and values."""

    def __init__(self, attention: Any, tokens: int, shared: bool) -> None:
        super().__init__()
        self.attention = attention
        heads, width = attention.num_heads, attention.qkv.in_features // attention.num_heads
        self.keys = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(heads, tokens, width)))
        self.values = None if shared else nn.Parameter(nn.init.kaiming_uniform_(torch.empty(heads, tokens, width)))

    def forward(self, x: Tensor, **masks: object) -> Tensor:  # [b, n, d]; timm passes masks that are None
        return attend(self.attention, x, x, (self.keys, self.keys if self.values is None else self.values))


@method("e2vpt")
class E2VPT(Method):
    """Inserts trained tokens before every block, and trained keys and values into every attention."""

    tokens: PositiveInt = 10
    key_value_tokens: PositiveInt = 5
    shared: bool = True
    """Use one array for keys and values."""
    dropout: Rate = 0.1
    """Of the tokens before the blocks."""
    title = "E2VPT"
    paper = Paper("ICCV", 2023, "2307.13770", "ChengHan111/E2VPT")
    equation = (
        r"\mathrm{softmax}\big(q(x)\,[E_l; k(x)]^\top / \sqrt{d_h}\big)\,[E_l; v(x)],\ x \leftarrow [x_{cls}, P_l, x]"
    )
    targets = "tokens of every block, keys and values"
    evidence = "authors' training"
    search = {"tokens": (5, 10, 20, 50), "key_value_tokens": (1, 5, 10)}  # ours
    starts_as_identity = False

    def validate_backbone(self, vit: VisionTransformer) -> None:
        check_attend(vit)

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            block.attn = KeyValuePrompted(block.attn, self.key_value_tokens, self.shared)
            prompts = FreePrompts(initial_prompts(vit, self.tokens))
            vit.blocks[i] = PromptedBlock(block, prompts, vit.num_prefix_tokens, self.dropout)

    def expected_params(self, vit: VisionTransformer) -> int:
        rows = self.tokens + (1 if self.shared else 2) * self.key_value_tokens
        return len(vit.blocks) * rows * vit.embed_dim
