"""VAPT, visual adaptive prompt tuning (Le et al., ICLR 2026, arXiv:2501.18936): prompts computed from the patches.

    P_l = A_l conv_l(LN_l(x)) + a_l,   [cls, P_l + W_2 relu(W_1 P_l), x] -> Block_l,   A_l: [tokens, positions]

One k x k kernel per block is shared by all channels, and W_1, W_2 by all blocks.  The first block has plain prompts
(Minhchuyentoancbn/VAPT src/models/vit_prompt/vit.py).  The release supports a 14 x 14 grid; here any grid works.
"""

from typing import cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Method, Paper, method
from .vpt import FreePrompts, PromptedBlock, initial_prompts


class Projector(nn.Module):
    """p -> p + Up(drop(relu(Down(p)))), without biases."""

    def __init__(self, d: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(d, hidden, bias=False), nn.Linear(hidden, d, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, p: Tensor) -> Tensor:  # [b, tokens, d]
        return p + self.up(self.dropout(self.down(p).relu()))


class AdaptivePrompts(nn.Module):
    """Patches [b, height * width, d] -> prompts [b, tokens, d], initially zero."""

    def __init__(self, d: int, grid: tuple[int, int], tokens: int, kernel: int, projector: Projector, drop: float):
        super().__init__()
        self.grid, self.projector = grid, projector
        self.norm, self.dropout = nn.LayerNorm(d), nn.Dropout2d(drop)
        self.kernel = nn.Parameter(torch.randn(1, 1, kernel, kernel))
        self.mix = nn.Linear((grid[0] - kernel + 1) * (grid[1] - kernel + 1), tokens)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, patches: Tensor) -> Tensor:
        maps = self.norm(patches).transpose(1, 2).unflatten(2, self.grid)  # [b, d, height, width]
        convolved = F.conv2d(maps.flatten(0, 1)[:, None], self.kernel).unflatten(0, maps.shape[:2])[:, :, 0]
        return self.projector(self.mix(self.dropout(convolved).flatten(2)).transpose(1, 2))


class AdaptiveBlock(PromptedBlock):
    """A block with prompts that are computed from its patches."""

    def prompted(self, x: Tensor) -> Tensor:  # [b, prefix + patches, d] -> [b, prefix + tokens + patches, d]
        prefix, patches = x[:, : self.prefix], x[:, self.prefix :]
        return self.block(torch.cat([prefix, self.prompts(patches).to(x.dtype), patches], dim=1))


@method("vapt")
class VAPT(Method):
    """Inserts tokens before every block that are computed from the patches by a small convolution and a linear map."""

    tokens: PositiveInt = 10
    hidden: PositiveInt = 8
    """Width of the shared projector."""
    kernel: PositiveInt = 2
    dropout: Rate = 0.1
    """Of the first block's prompts, of whole convolved channels, and in the projector."""
    title = "VAPT"
    paper = Paper("ICLR", 2026, "2501.18936", "Minhchuyentoancbn/VAPT")
    equation = r"P_l = A_l\,\mathrm{conv}_l(\mathrm{LN}_l(x)) + a_l,\ [x_{cls}, P_l + W_2\,\mathrm{ReLU}(W_1 P_l), x]"
    targets = "tokens of every block"
    evidence = "authors' training"
    differs = "Biases and LayerNorms that compute the prompts are decayed there; the recipe `vpt` decays none."
    search = {"tokens": (5, 10, 50)}  # ours
    starts_as_identity = False

    def inject(self, vit: VisionTransformer) -> None:
        grid, prefix = cast(tuple[int, int], vit.patch_embed.grid_size), vit.num_prefix_tokens
        if min(grid) < self.kernel:
            raise ValueError(f"kernel={self.kernel} exceeds the backbone's grid of {grid[0]} x {grid[1]} patches")
        projector = Projector(vit.embed_dim, self.hidden, self.dropout)
        plain = FreePrompts(initial_prompts(vit, self.tokens))
        vit.blocks[0] = PromptedBlock(vit.blocks[0], plain, prefix, self.dropout)
        for i, block in list(enumerate(vit.blocks))[1:]:
            prompts = AdaptivePrompts(vit.embed_dim, grid, self.tokens, self.kernel, projector, self.dropout)
            vit.blocks[i] = AdaptiveBlock(block, prompts, prefix, 0.0)

    def expected_params(self, vit: VisionTransformer) -> int:
        d, k = vit.embed_dim, self.kernel
        rows, columns = cast(tuple[int, int], vit.patch_embed.grid_size)
        positions = (rows - k + 1) * (columns - k + 1)
        adaptive = 2 * d + k * k + self.tokens * (positions + 1)
        return self.tokens * d + 2 * self.hidden * d + (len(vit.blocks) - 1) * adaptive
