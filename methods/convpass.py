"""Convpass (Jie et al., ECAI 2024, arXiv:2207.07039): convolutional bypasses beside attention and MLP.

JieShibo/PETL-ViT convpass/vtab/convpass.py, whose 14 x 14 grid and one class token are here any grid and any number
of prefix tokens.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

from timm.layers.activations import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register, require_positive
from .blocks import OnPatchGrid, branches

Kernel = Literal["identity", "xavier"]


class Bypass(nn.Module):
    """In parallel with the branch that reads h: h -> s Up(drop(act(conv(act(Down(h)))))), zero at the start."""

    def __init__(
        self,
        vit: VisionTransformer,
        bottleneck: int,
        kernel: Kernel,
        scale: float,
        dropout: float,
        drop_path: nn.Module,
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d(bottleneck, bottleneck, 3, padding=1)
        self.down, self.up = nn.Linear(vit.embed_dim, bottleneck), nn.Linear(bottleneck, vit.embed_dim)
        self.convolution, self.activation = OnPatchGrid(convolution, vit), QuickGELU()
        self.scale, self.dropout, self.drop_path = scale, nn.Dropout(dropout), drop_path
        (nn.init.dirac_ if kernel == "identity" else nn.init.xavier_uniform_)(convolution.weight)
        nn.init.xavier_uniform_(self.down.weight)
        for zero in (convolution.bias, self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(cast(Tensor, zero))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # [b, n, d], of which x is not read
        z = self.activation(self.convolution(self.activation(self.down(h))))
        return self.drop_path(self.up(self.dropout(z))) * self.scale


@register("convpass")
@dataclass(frozen=True)
class Convpass(Method):
    """A bottleneck with a 3 x 3 convolution over the patch grid, in parallel with both branches."""

    bottleneck: int = 8
    scale: float = 1.0
    """The middle of the paper's grid, the default of `set_Convpass` and the median of its 19 VTAB configurations."""
    kernel: Kernel = "identity"
    """Start of the convolution; the released configurations choose it by task."""
    dropout: float = 0.1
    title = "Convpass"
    paper = Paper("ECAI", 2024, "2207.07039", "JieShibo/PETL-ViT")
    equation = r"x \leftarrow x + f(h) + s\,W_u\,\phi(\mathrm{Conv}_{3\times3}(\phi(W_d h))),\quad h = \mathrm{LN}(x)"
    places = "beside attention and MLP"
    evidence = "golden"
    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0)}
    per_block: ClassVar[int] = 2
    """Bypasses in a block: the first is beside attention, the second beside the MLP."""

    def __post_init__(self) -> None:
        require_positive(bottleneck=self.bottleneck)
        if self.kernel not in get_args(Kernel):
            raise ValueError(f"kernel must be one of {', '.join(get_args(Kernel))}, not {self.kernel!r}")

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            both = branches(block)
            for branch in both[: self.per_block]:
                # The block's own drop path, drawn anew for the bypass (convpass.py:8-9)
                branch.beside = Bypass(vit, self.bottleneck, self.kernel, self.scale, self.dropout, branch.drop_path)
            vit.blocks[i] = nn.Sequential(*both)

    def expected_params(self, vit: VisionTransformer) -> int:
        d, r = vit.embed_dim, self.bottleneck
        return len(vit.blocks) * self.per_block * (2 * d * r + r + d + 9 * r * r + r)


@register("convpass_attn")
@dataclass(frozen=True)
class ConvpassAttention(Convpass):
    """A bottleneck with a 3 x 3 convolution over the patch grid, in parallel with attention alone."""

    kernel: Kernel = "xavier"
    """All 19 configurations of this variant have it."""
    title = "Convpass-attn"
    places = "beside attention"
    per_block = 1
