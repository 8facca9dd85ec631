"""Visual Prompt Tuning, deep (Jia et al., ECCV 2022, arXiv:2203.12119): learned tokens in front of every block.

Each block sees its own prompts after the class token; what it made of them is dropped, as the next block
brings its own (KMnP/vpt src/models/vit_prompt/vit.py).
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, at_least_one, register


class PromptedBlock(nn.Module):
    """Runs a block with learned tokens behind the first `prefix` ones, and drops them again."""

    def __init__(self, block: nn.Module, prompts: Tensor, prefix: int, dropout: float) -> None:
        super().__init__()
        self.block, self.prefix = block, prefix
        self.prompts, self.dropout = nn.Parameter(prompts), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # [b, prefix + patches, d]
        prompts = self.dropout(self.prompts).to(x.dtype).expand(len(x), -1, -1)
        x = self.block(torch.cat([x[:, : self.prefix], prompts, x[:, self.prefix :]], dim=1))
        return torch.cat([x[:, : self.prefix], x[:, self.prefix + self.prompts.shape[0] :]], dim=1)


@register("vpt_deep")
@dataclass(frozen=True)
class VPTDeep(Method):
    """Learned tokens in front of every block."""

    tokens: int = 10
    dropout: float = 0.1
    title = "VPT-Deep"
    paper = Paper("ECCV", 2022, "2203.12119", "KMnP/vpt")
    equation = r"[x_{cls}, \_, x] \leftarrow \mathrm{Block}_l([x_{cls}, P_l, x])"
    places = "tokens of every block"
    evidence = "golden"
    search = {"tokens": (1, 5, 10, 50, 100)}
    starts_as_identity = False

    def __post_init__(self) -> None:
        at_least_one(tokens=self.tokens)

    def inject(self, vit: VisionTransformer) -> None:
        patch = cast(tuple[int, int], vit.patch_embed.patch_size)
        bound = math.sqrt(6 / (3 * patch[0] * patch[1] + vit.embed_dim))  # Xavier over the patch embedding, as in VPT
        for i, block in enumerate(vit.blocks):
            prompts = torch.empty(self.tokens, vit.embed_dim).uniform_(-bound, bound)
            vit.blocks[i] = PromptedBlock(block, prompts, vit.num_prefix_tokens, self.dropout)

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * self.tokens * vit.embed_dim
