"""HST (Lin et al., 2023, arXiv:2310.05393): a hierarchical side network that reads meta tokens and features of a ViT.

    [M_l; x_l] = Block_l([m_l; x_{l-1}]),   m_l trained
    z -> z + Attn(LN(z); [LN(T M_l); mean T V_l]) + T V_l,   z -> z + MLP(LN(z))

z is a map of its own: a stem reads the image, then widths grow and resolutions fall from stage to stage.  V_l are the
patch tokens of x_l, resized to the stage's grid, and T is one linear map per stage.  The mean of the last map, under a
batch norm without parameters, replaces the features.  The norms of the backbone's blocks are trained too
(AFeng-x/HST models/vit_hsn.py).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import patch_convolution
from .arguments import PositiveInt
from .base import Method, Paper, method
from .blocks import First, init_as_timm

WIDTHS, HEADS = (32, 48, 64, 72), (2, 4, 8, 12)
"""Width and heads of each stage; a backbone with fewer blocks than stages has the first stages only."""


class StemMap:
    """The stem's map of the current images, [b, width, h, w]; a copy of a model begins without one.

    A model therefore takes one batch at a time, and threads need copies of their own.
    """

    value: Tensor

    def __reduce__(self) -> tuple[type["StemMap"], tuple[()]]:
        return StemMap, ()


class ProjectionAndStem(nn.Module):
    """The patch projection, and beside it the stem, which reads the same images.

    The stem is outside the blocks because gradient checkpointing runs these twice, and with them the running
    statistics of a batch norm.
    """

    def __init__(self, proj: nn.Module, channels: int, width: int, stem_map: StemMap) -> None:
        super().__init__()
        self.proj, self.stem_map = proj, stem_map
        down = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        self.stem = nn.Sequential(down, nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 2, stride=2))
        self.stem.apply(start)

    def forward(self, images: Tensor) -> Tensor:  # [b, 3, h, w]
        self.stem_map.value = self.stem(images)
        return self.proj(images)


class SideBlock(nn.Module):
    """Lets the positions z read the keys, adds the backbone's features, and applies an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.mlp = Mlp(width, 4 * width)

    def forward(self, z: Tensor, keys: Tensor, features: Tensor) -> Tensor:  # [b, n, w], [b, k, w], [b, n, w]
        q, k, v = self.q(self.norm1(z)), self.k(keys), self.v(keys)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        z = z + self.proj(read) + features
        return z + self.mlp(self.norm2(z))


class Stage(nn.Module):
    """Changes resolution and width of the map, and lets it read the meta tokens and patches of some blocks."""

    resize: Tensor

    def __init__(self, embed: nn.Module, d: int, width: int, heads: int, blocks: int, resize: Tensor) -> None:
        super().__init__()
        self.embed, self.embed_norm, self.bridge = embed, nn.LayerNorm(width), nn.Linear(d, width)
        self.meta_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.blocks = nn.ModuleList(SideBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.register_buffer("resize", resize, persistent=False)

    def forward(self, z: Tensor, outputs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:  # [b, c, h, w] -> [b, width, ...]
        z = self.embed(z)
        grid = z.shape[2:]
        z = self.embed_norm(z.flatten(2).transpose(1, 2))
        for block, norm, (meta, patches) in zip(self.blocks, self.meta_norms, outputs, strict=True):
            features = self.resize @ self.bridge(patches)  # the other order is the same map, and more work
            keys = torch.cat([norm(self.bridge(meta)), features.mean(1, keepdim=True)], dim=1)
            z = block(z, keys, features)
        return self.norm(z).transpose(1, 2).unflatten(2, grid)


class SideNetwork(nn.Module):
    """Runs the blocks with meta tokens, then the side network on what they computed; returns [b, 1, width]."""

    def __init__(
        self, vit: VisionTransformer, stem_map: StemMap, tokens: int, widths: Sequence[int], heads: Sequence[int]
    ) -> None:
        super().__init__()
        d, (height, width) = vit.embed_dim, cast(tuple[int, int], vit.patch_embed.img_size)
        self.blocks, self.prefix, self.stem_map = vit.blocks, vit.num_prefix_tokens, stem_map
        self.meta = nn.Parameter(torch.empty(len(vit.blocks), tokens, d))
        limit = (6 / (d * (tokens + 1))) ** 0.5  # xavier_uniform on a tensor of shape [1, tokens, d]
        nn.init.uniform_(self.meta, -limit, limit)
        grid, side = cast(tuple[int, int], vit.patch_embed.grid_size), (-(-height // 2) // 2, -(-width // 2) // 2)
        shares = torch.arange(len(vit.blocks)).tensor_split(min(len(widths), len(vit.blocks)))
        self.stages = nn.ModuleList()
        for i, (share, new, head_count) in enumerate(zip(shares, widths, heads, strict=False)):
            if i:
                side = (-(-side[0] // 2), -(-side[1] // 2))
            embed = nn.Conv2d(widths[i - 1], new, 3, stride=2, padding=1) if i else nn.Identity()
            self.stages.append(Stage(embed, d, new, head_count, len(share), interpolation(grid, side)))
        self.stages.apply(start)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        outputs: list[tuple[Tensor, Tensor]] = []
        for block, meta in zip(self.blocks, self.meta, strict=True):
            x = block(torch.cat([meta.expand(len(x), -1, -1).to(x.dtype), x], dim=1))
            meta, x = x.tensor_split([len(meta)], dim=1)
            outputs.append((meta, x[:, self.prefix :]))
        z = self.stem_map.value
        for module in self.stages:
            stage = cast(Stage, module)
            now, outputs = outputs[: len(stage.blocks)], outputs[len(stage.blocks) :]
            z = stage(z, now)
        return z.flatten(2).mean(2)[:, None]


def interpolation(old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Return the matrix of bilinear interpolation between grids, [new positions, old positions]."""
    positions = old[0] * old[1]
    unit = torch.eye(positions).view(1, positions, *old)
    return F.interpolate(unit, size=new, mode="bilinear", align_corners=False).view(positions, -1).T.contiguous()


def start(module: nn.Module) -> None:
    """Draw the released initial values of a layer."""
    init_as_timm(module)
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=(2 / (module.weight.numel() / module.in_channels)) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class FeatureNorm(nn.BatchNorm1d):
    """A batch norm without parameters; a single image is normalised by the running statistics."""

    def forward(self, input: Tensor) -> Tensor:  # [b, width]
        x = input.to(cast(Tensor, self.running_mean).dtype)
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)


@method("hst")
class HST(Method):
    """Trains a hierarchical side network that reads meta tokens and patches of every block; its map is classified."""

    tokens: PositiveInt = 1
    """Meta tokens per block."""
    title = "HST"
    paper = Paper("arXiv", 2023, "2310.05393", "AFeng-x/HST")
    equation = r"z \leftarrow z + \mathrm{Attn}(z;\ [\mathrm{LN}(T M_l);\ \overline{T V_l}]) + T V_l"
    targets = "beside every block, norms"
    evidence = "authors' module"
    search = {"tokens": (1, 4, 8)}  # ours
    starts_as_identity = False
    needs_whole_batch = True  # for its batch norms

    def validate_backbone(self, vit: VisionTransformer) -> None:
        if vit.dynamic_img_size or not isinstance(vit.patch_drop, nn.Identity):
            raise ValueError("its number of patches can change")

    def inject(self, vit: VisionTransformer) -> None:
        add_side_network(vit, self.tokens, WIDTHS, HEADS)

    def expected_params(self, vit: VisionTransformer) -> int:
        d, depth = vit.embed_dim, len(vit.blocks)
        total = depth * (4 * d + self.tokens * d)
        shares = torch.arange(depth).tensor_split(min(len(WIDTHS), depth))
        for i, (share, w) in enumerate(zip(shares, WIDTHS, strict=False)):
            channels = WIDTHS[i - 1] if i else patch_convolution(vit).in_channels
            embed = 9 * channels * w + (w if i else 2 * w + 4 * w * w + w)
            total += embed + (d * w + w) + 4 * w + len(share) * (12 * w * w + 15 * w)
        return total


def add_side_network(vit: VisionTransformer, tokens: int, widths: Sequence[int], heads: Sequence[int]) -> None:
    """Put the side network beside the blocks, its normalised map in place of the features, and unfreeze the norms."""
    for block in vit.blocks:
        for name in ("norm1", "norm2"):
            block.get_submodule(name).requires_grad_(True)
    stem_map = StemMap()
    channels = patch_convolution(vit).in_channels
    vit.patch_embed.proj = cast(Any, ProjectionAndStem(vit.patch_embed.proj, channels, widths[0], stem_map))
    side = SideNetwork(vit, stem_map, tokens, widths, heads)
    vit.num_features = widths[len(side.stages) - 1]
    vit.blocks = nn.Sequential(side)
    vit.attn_pool, vit.pool_include_prefix = cast(Any, First()), True
    vit.norm, vit.fc_norm = nn.Identity(), FeatureNorm(vit.num_features, eps=1e-6, affine=False)
