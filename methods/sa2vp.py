"""SA2VP, spatially aligned and adapted visual prompts (Pei et al., AAAI 2024, arXiv:2312.10376).

    s = U p + pos,   f_l = 0.1 MLP_l(LN_l(q + Attn_l(q; kv)))
    x -> Block_l(x) + f_l(q = x, kv = s),   s -> Block_l(s) + [l in 4, 8] c_l * Block_l(U_l p_l)

There is one prompt for each token.  Images x and prompts s pass the same frozen blocks.  In every fourth block, from
the first on, f_l instead takes q = s, kv = x, and is added to s.  The attention is the block's own; a patch reads a
3 x 3 window.  The loss is 0.8 CE of the images' feature and 0.2 CE of the prompts', through one head
(tommy-xq/SA2VP vpt_main/src/models/vit_backbones/vit_tinypara.py).  The release supports 12 blocks and a 14 x 14 grid.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .adapters import init_noah
from .arguments import PositiveInt
from .attention import attend, check_attend
from .base import Loss, Method, Paper, method
from .initial_values import trunc_normal_

PERIOD = 4
"""Blocks from one that adapts the prompts to the next."""
SCALE = 0.1


class Fusion(nn.Module):
    """Queries [b, n, d] and tokens [b, n, d] -> scale MLP(LN(queries + attention of the queries to the tokens))."""

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.down, self.up = nn.Linear(d, hidden).apply(init_noah), nn.Linear(hidden, d).apply(init_noah)

    def forward(self, block: Any, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        read = attend(block.attn, block.norm1(queries), block.norm1(tokens), mask=mask)
        return SCALE * self.up(F.gelu(self.down(self.norm(queries + read))))


class Prompts(nn.Module):
    """() -> U p, one prompt for each token, [tokens, d]."""

    def __init__(self, tokens: int, hidden: int, d: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(trunc_normal_(torch.empty(tokens, hidden)))
        self.up = nn.Linear(hidden, d).apply(init_noah)

    def forward(self) -> Tensor:
        return self.up(self.tokens)


class TwoStreams(nn.Module):
    """Runs image tokens and prompts through the blocks; in training the second half of the batch is the prompts.

    The method's batches hold each image twice, of which the second copy is not computed.
    """

    positions: Tensor
    mask: Tensor

    def __init__(self, vit: VisionTransformer, hidden: int) -> None:
        super().__init__()
        d, depth, grid = vit.embed_dim, len(vit.blocks), cast(tuple[int, int], vit.patch_embed.grid_size)
        tokens = vit.num_prefix_tokens + grid[0] * grid[1]
        own = cast(Tensor, vit.pos_embed)[0].detach()
        self.blocks = vit.blocks
        self.prompts = nn.ModuleList(Prompts(tokens, hidden, d) for _ in range(0, depth, PERIOD))
        deep = len(self.prompts) - 1
        self.factors = nn.Parameter(torch.empty(deep, d).normal_(std=0.02)) if deep else None
        self.fusions = nn.ModuleList(Fusion(d, hidden) for _ in range(depth))
        self.register_buffer("positions", F.pad(own, (0, 0, tokens - len(own), 0)), persistent=False)
        self.register_buffer("mask", neighbourhood(grid, vit.num_prefix_tokens), persistent=False)

    def streams(self, x: Tensor) -> tuple[Tensor, Tensor]:  # [b, n, d] -> [b, n, d] twice: images, prompts
        s = (self.prompts[0]() + self.positions).expand(len(x), -1, -1).to(x.dtype)
        for i, (block, fusion) in enumerate(zip(self.blocks, self.fusions, strict=True)):
            adapts_prompts = i % PERIOD == 0
            fused = fusion(block, *((s, x) if adapts_prompts else (x, s)), self.mask)
            s, x = block(s), block(x)
            if adapts_prompts:
                if i and self.factors is not None:
                    more = block(self.prompts[i // PERIOD]()[None].to(x.dtype))
                    s = s + self.factors[i // PERIOD - 1] * more
                s = s + fused
            else:
                x = x + fused
        return x, s

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        if not self.training:
            return self.streams(x)[0]
        return torch.cat(self.streams(x[: len(x) // 2]))


def neighbourhood(grid: tuple[int, int], prefix: int) -> Tensor:
    """Return True where token i reads token j: patches their 3 x 3 neighbours, prefix tokens all, [n, n]."""
    rows, columns = (torch.arange(grid[0] * grid[1]) // grid[1], torch.arange(grid[0] * grid[1]) % grid[1])
    near = ((rows[:, None] - rows).abs() <= 1) & ((columns[:, None] - columns).abs() <= 1)
    mask = F.pad(near, (prefix, 0), value=False)
    return F.pad(mask, (0, 0, prefix, 0), value=True)


@method("sa2vp")
class SA2VP(Method):
    """Trains one prompt for each token, which pass the frozen blocks beside the image and exchange with it."""

    hidden: PositiveInt = 16
    """Width of the prompts before U, and of the small MLPs."""
    title = "SA2VP"
    paper = Paper("AAAI", 2024, "2312.10376", "tommy-xq/SA2VP")
    equation = r"x \leftarrow \mathrm{Block}_l(x) + 0.1\,\mathrm{MLP}_l(\mathrm{LN}(x + \mathrm{Attn}_l(x; s)))"
    targets = "prompts beside all tokens"
    evidence = "authors' module"
    differs = "There dropout of 0.1 stays active in the frozen blocks and in the attention of the fusion."
    search = {"hidden": (8, 16, 32)}  # ours
    starts_as_identity = False
    copies = 2

    def validate_backbone(self, vit: VisionTransformer) -> None:
        check_attend(vit)
        if vit.pos_embed is None:
            raise ValueError("it has no position embedding, which the prompts share")

    def inject(self, vit: VisionTransformer) -> None:
        vit.blocks = nn.Sequential(TwoStreams(vit, self.hidden))

    def loss(self, vit: VisionTransformer, logits: Tensor, labels: Tensor, cross_entropy: Loss) -> Tensor:
        of_images, of_prompts = logits.chunk(2)
        return 0.8 * cross_entropy(of_images, labels) + 0.2 * cross_entropy(of_prompts, labels)

    def expected_params(self, vit: VisionTransformer) -> int:
        d, h, depth = vit.embed_dim, self.hidden, len(vit.blocks)
        rows, columns = cast(tuple[int, int], vit.patch_embed.grid_size)
        prompts = (vit.num_prefix_tokens + rows * columns) * h + h * d + d
        times = -(-depth // PERIOD)
        return times * prompts + (times - 1) * d + depth * (2 * d + 2 * h * d + h + d)
