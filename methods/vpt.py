"""Visual Prompt Tuning (Jia et al., ECCV 2022, arXiv:2203.12119): learned tokens beside those of the image.

They stand behind the prefix tokens and have no position embedding.  Shallow: they enter once and go through all
blocks.  Deep: each block sees prompts of its own (KMnP/vpt src/models/vit_prompt/vit.py).  What the model made of
them is dropped before pooling, so that a mean over the tokens is one over the image's.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register, require_positive


class PromptedBlock(nn.Module):
    """Runs a block with the tokens that `prompts()` makes behind the first `prefix` ones, and drops them again."""

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
    """Every entry is learned."""

    def __init__(self, tokens: Tensor) -> None:  # [tokens, d]
        super().__init__()
        self.tokens = nn.Parameter(tokens)

    def forward(self) -> Tensor:
        return self.tokens


def initial_prompts(vit: VisionTransformer, tokens: int) -> Tensor:
    """[tokens, d], Xavier-uniform over the patch embedding (vit_prompt/vit.py:54-71)."""
    height, width = cast(tuple[int, int], vit.patch_embed.patch_size)
    bound = math.sqrt(6 / (3 * height * width + vit.embed_dim))
    return torch.empty(tokens, vit.embed_dim).uniform_(-bound, bound)


@register("vpt_shallow")
@dataclass(frozen=True)
class VPTShallow(Method):
    """Learned tokens in front of the first block, kept through all of them."""

    tokens: int = 10
    dropout: float = 0.0  # src/configs/config.py:74
    title = "VPT-Shallow"
    paper = Paper("ECCV", 2022, "2203.12119", "KMnP/vpt")
    equation = r"[x_{cls}, \_, x] \leftarrow \mathrm{Block}_L(\cdots \mathrm{Block}_1([x_{cls}, P, x]))"
    places = "tokens of the first block"
    evidence = "golden"
    search = {"tokens": (1, 5, 10, 50, 100)}
    starts_as_identity = False

    def __post_init__(self) -> None:
        require_positive(tokens=self.tokens)

    def inject(self, vit: VisionTransformer) -> None:
        prompts = FreePrompts(initial_prompts(vit, self.tokens))
        vit.blocks = nn.Sequential(PromptedBlock(vit.blocks, prompts, vit.num_prefix_tokens, self.dropout))

    def expected_params(self, vit: VisionTransformer) -> int:
        return self.tokens * vit.embed_dim


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
    version = 2  # 1 dropped the same prompt entries for all images of a batch
    search = {"tokens": (1, 5, 10, 50, 100)}
    starts_as_identity = False

    def __post_init__(self) -> None:
        require_positive(tokens=self.tokens)

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            prompts = FreePrompts(initial_prompts(vit, self.tokens))
            vit.blocks[i] = PromptedBlock(block, prompts, vit.num_prefix_tokens, self.dropout)

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * self.tokens * vit.embed_dim
