"""Mona (Yin et al., CVPR 2025, arXiv:2408.08345): a bottleneck with depthwise convolutions of three sizes.

    x -> x + W_u GELU(Conv(W_d (gamma_x x + gamma LN(x)))),   W_d: [r, d], W_u: [d, r]

Mona was written for Swin, which has only patch tokens (Leiyi-Hu/mona
Swin-Transformer-Classification/mmcls/models/backbones/swin_transformer_mona.py:27-85).  The port to ViT is ours: class
and register tokens pass the same adapter, with only the centre weights of its convolutions, as in Convpass.
"""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Method, Paper, later, method
from .blocks import OnPatchGrid, Residual, branches, init_as_timm

KERNELS = (3, 5, 7)


class Mean(nn.Module):
    """x -> the mean of the modules' outputs."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([part(x) for part in self.parts]).mean(0)


class MonaAdapter(nn.Module):
    """x -> Up(drop(gelu(mix(Down(gamma * LN(x) + gamma_x * x))))), where `mix` has two residual convolution steps.

    All projections and convolutions have PyTorch's default initialisation, so the adapter is not initially zero.
    """

    def __init__(self, vit: VisionTransformer, bottleneck: int, dropout: float, start: str) -> None:
        super().__init__()
        d = vit.embed_dim
        self.norm = nn.LayerNorm(d)
        self.gamma, self.gamma_x = nn.Parameter(torch.full((d,), 1e-6)), nn.Parameter(torch.ones(d))
        self.down, self.up, self.dropout = nn.Linear(d, bottleneck), nn.Linear(bottleneck, d), nn.Dropout(dropout)
        if start == "released":
            for linear in (self.down, self.up):
                init_as_timm(linear)
        depthwise = Mean(nn.Conv2d(bottleneck, bottleneck, k, padding=k // 2, groups=bottleneck) for k in KERNELS)
        pointwise = nn.Conv2d(bottleneck, bottleneck, 1)
        self.mix = OnPatchGrid(nn.Sequential(Residual(depthwise), Residual(pointwise)), vit)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        z = self.mix(self.down(self.norm(x) * self.gamma + x * self.gamma_x))
        return self.up(self.dropout(F.gelu(z)))


@method("mona")
class Mona(Method):
    """Adds a bottleneck with multi-scale depthwise convolutions to the residual stream after each branch."""

    bottleneck: PositiveInt = 64
    dropout: Rate = 0.1
    start: Literal["torch", "released"] = later(default="torch")
    """torch: the module's own initialisation.  released: what training starts from, because the model initialises all
    linear maps again (swin_transformer_mona.py:673-687, called by tools/train.py:176)."""
    title = "Mona"
    paper = Paper("CVPR", 2025, "2408.08345", "Leiyi-Hu/mona")
    equation = r"x \leftarrow x + W_u\,\mathrm{GELU}(\mathrm{Conv}(W_d(\gamma_x x + \gamma\,\mathrm{LN}(x))))"
    targets = "after attention and MLP branch"
    evidence = "authors' training"
    differs = (
        "The released model initialises all linear maps again; `start='released'` does so. The port from Swin to "
        "ViT is ours."
    )
    search = {"bottleneck": (32, 64, 128)}  # the widths of the paper's ablation
    starts_as_identity = False  # see MonaAdapter

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            adapters = (Residual(MonaAdapter(vit, self.bottleneck, self.dropout, self.start)) for _ in range(2))
            attention, mlp = branches(block)
            vit.blocks[i] = nn.Sequential(attention, next(adapters), mlp, next(adapters))

    def expected_params(self, vit: VisionTransformer) -> int:
        d, r = vit.embed_dim, self.bottleneck
        projections = 2 * d * r + r + d
        convolutions = sum(k * k * r + r for k in KERNELS) + r * r + r
        return len(vit.blocks) * 2 * (4 * d + projections + convolutions)  # 4: the LayerNorm, gamma and gamma_x
