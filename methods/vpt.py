"""VPT, visual prompt tuning (Jia et al., ECCV 2022, arXiv:2203.12119): trained tokens next to those of the image.

    [cls, P, patches] -> Block(s) -> [cls, _, patches],   P: [tokens, d]

Prompts follow the prefix tokens and have no position embedding.  Shallow prompts enter once and pass all blocks; deep
prompts differ for each block (KMnP/vpt src/models/vit_prompt/vit.py).  The prompts' outputs are dropped before pooling,
so that mean pooling averages only image tokens.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Method, Paper, method


class PromptedBlock(nn.Module):
    """Inserts the tokens `prompts()` after the first `prefix` tokens, runs a block and drops the tokens' outputs."""

    def __init__(self, block: nn.Module, prompts: nn.Module, prefix: int, dropout: float) -> None:
        super().__init__()
        self.block, self.prefix = block, prefix
        self.prompts, self.dropout = prompts, nn.Dropout(dropout)

    def prompted(self, x: Tensor) -> Tensor:  # [b, prefix + patches, d] -> [b, prefix + tokens + patches, d]
        prompts = self.dropout(self.prompts().expand(len(x), -1, -1)).to(x.dtype)
        return self.block(torch.cat([x[:, : self.prefix], prompts, x[:, self.prefix :]], dim=1))

    def forward(self, x: Tensor) -> Tensor:  # [b, prefix + patches, d]
        patches = x.shape[1] - self.prefix
        x = self.prompted(x)
        return torch.cat([x[:, : self.prefix], x[:, -patches:]], dim=1)


class FreePrompts(nn.Module):
    """Prompts whose every entry is a parameter."""

    def __init__(self, tokens: Tensor) -> None:  # [tokens, d]
        super().__init__()
        self.tokens = nn.Parameter(tokens)

    def forward(self) -> Tensor:
        return self.tokens


def initial_prompts(vit: VisionTransformer, tokens: int) -> Tensor:
    """Return prompts [tokens, d], uniform in the Xavier bounds of the patch embedding (vit_prompt/vit.py:54-71)."""
    height, width = cast(tuple[int, int], vit.patch_embed.patch_size)
    bound = math.sqrt(6 / (3 * height * width + vit.embed_dim))
    return torch.empty(tokens, vit.embed_dim).uniform_(-bound, bound)


@dataclass(frozen=True)
class _VPT(Method):
    tokens: PositiveInt = 10
    paper = Paper("ECCV", 2022, "2203.12119", "KMnP/vpt")
    evidence = "authors' training"
    search = {"tokens": (1, 5, 10, 50, 100)}
    starts_as_identity = False


@method("vpt_shallow")
class VPTShallow(_VPT):
    """Inserts trained tokens before the first block and keeps them through all blocks."""

    dropout: Rate = 0.0  # src/configs/config.py:74
    title = "VPT-Shallow"
    equation = r"[x_{cls}, \_, x] \leftarrow \mathrm{Block}_L(\cdots \mathrm{Block}_1([x_{cls}, P, x]))"
    targets = "tokens of the first block"

    def inject(self, vit: VisionTransformer) -> None:
        prompts = FreePrompts(initial_prompts(vit, self.tokens))
        vit.blocks = nn.Sequential(PromptedBlock(vit.blocks, prompts, vit.num_prefix_tokens, self.dropout))

    def expected_params(self, vit: VisionTransformer) -> int:
        return self.tokens * vit.embed_dim


@method("vpt_deep")
class VPTDeep(_VPT):
    """Inserts trained tokens before every block."""

    dropout: Rate = 0.1
    title = "VPT-Deep"
    equation = r"[x_{cls}, \_, x] \leftarrow \mathrm{Block}_l([x_{cls}, P_l, x])"
    targets = "tokens of every block"
    version = 2  # version 1 dropped the same prompt entries for all images of a batch

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            prompts = FreePrompts(initial_prompts(vit, self.tokens))
            vit.blocks[i] = PromptedBlock(block, prompts, vit.num_prefix_tokens, self.dropout)

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * self.tokens * vit.embed_dim
