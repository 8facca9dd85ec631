"""Convpass (Jie et al., ECAI 2024, arXiv:2207.07039): convolutional bypasses in parallel to attention and MLP.

    x -> x + f(h) + s W_u act(Conv_3x3(act(W_d h))),   h = LN(x), W_d: [r, d], W_u: [d, r]

Source: JieShibo/PETL-ViT convpass/vtab/convpass.py.  The release supports a 14 x 14 grid and one class token; here any
grid and any number of prefix tokens work.
"""

from typing import ClassVar, Literal, cast

from timm.layers.activations import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Method, Paper, method
from .blocks import OnPatchGrid, branches

KernelInit = Literal["identity", "xavier"]


class Bypass(nn.Module):
    """h -> s Up(drop(act(conv(act(Down(h)))))) in parallel to the branch that reads h; initially zero."""

    def __init__(
        self,
        vit: VisionTransformer,
        bottleneck: int,
        kernel: KernelInit,
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

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # [b, n, d]; x is unused
        z = self.activation(self.convolution(self.activation(self.down(h))))
        return self.drop_path(self.up(self.dropout(z))) * self.scale


@method("convpass")
class Convpass(Method):
    """Adds a bottleneck with a 3 x 3 convolution over the patch grid in parallel to both branches."""

    bottleneck: PositiveInt = 8
    scale: float = 1.0
    """The middle of the paper's grid, the default of `set_Convpass` and the median of its 19 VTAB configurations."""
    kernel: KernelInit = "identity"
    """Initialisation of the convolution; the released configurations set it per task."""
    dropout: Rate = 0.1
    title = "Convpass"
    paper = Paper("ECAI", 2024, "2207.07039", "JieShibo/PETL-ViT")
    equation = r"x \leftarrow x + f(h) + s\,W_u\,\phi(\mathrm{Conv}_{3\times3}(\phi(W_d h))),\quad h = \mathrm{LN}(x)"
    targets = "parallel to attention and MLP"
    evidence = "authors' training"
    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0)}
    per_block: ClassVar[int] = 2
    """Bypasses per block: the first is parallel to attention, the second to the MLP."""

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            both = branches(block)
            for branch in both[: self.per_block]:
                # The bypass shares the block's drop path module but draws its own mask (convpass.py:8-9)
                branch.beside = Bypass(vit, self.bottleneck, self.kernel, self.scale, self.dropout, branch.drop_path)
            vit.blocks[i] = nn.Sequential(*both)

    def expected_params(self, vit: VisionTransformer) -> int:
        d, r = vit.embed_dim, self.bottleneck
        return len(vit.blocks) * self.per_block * (2 * d * r + r + d + 9 * r * r + r)


@method("convpass_attn")
class ConvpassAttention(Convpass):
    """Adds a bottleneck with a 3 x 3 convolution over the patch grid in parallel to attention only."""

    kernel: KernelInit = "xavier"
    """The value of all 19 released configurations of this variant."""
    title = "Convpass-attn"
    evidence = "authors' training"
    targets = "parallel to attention"
    differs = "The released configurations tune the scale per task, with a median of 10; `tune` covers it."
    per_block = 1
