"""Res-Tuning-Bypass (Jiang et al., NeurIPS 2023, arXiv:2310.19859): a side network that reads the frozen blocks.

    u_{i+1} = x_i + A_i(x_i) + u_i + B_i(u_i),   A(z) = W_u gelu(W_d z + b_d) + b_u

x_i is the output of block i, u_0 the input of the first block, and the final norm reads u.  No gradient passes the
blocks.  Source: swift/tuners/restuning.py:97-323 of modelscope/swift, which the authors name as their implementation.
"""

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .adapters import Bottleneck, init_noah
from .arguments import PositiveInt
from .base import Method, Paper, method


class Bypass(nn.Module):
    """Runs the blocks without gradient, and the side network, whose last state it returns."""

    def __init__(self, blocks: nn.Sequential, d: int, bottleneck: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.lateral, self.vertical = (
            nn.ModuleList(Bottleneck(d, bottleneck, nn.GELU()).apply(init_noah) for _ in blocks) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        side = x = x.detach()
        for block, lateral, vertical in zip(self.blocks, self.lateral, self.vertical, strict=True):
            x = block(x)
            side = x + lateral(x) + side + vertical(side)
        return side


@method("res_tuning")
class ResTuning(Method):
    """Trains a side network of bottlenecks beside the frozen blocks, and returns its state instead of theirs."""

    bottleneck: PositiveInt = 32
    title = "Res-Tuning-Bypass"
    paper = Paper("NeurIPS", 2023, "2310.19859", "modelscope/swift")
    equation = r"u_{i+1} = x_i + A_i(x_i) + u_i + B_i(u_i),\quad A(z) = W_u\,\mathrm{GELU}(W_d z + b_d) + b_u"
    targets = "beside every block"
    evidence = "authors' module"
    search = {"bottleneck": (8, 32, 64)}  # ours
    starts_as_identity = False

    def inject(self, vit: VisionTransformer) -> None:
        vit.blocks = nn.Sequential(Bypass(vit.blocks, vit.embed_dim, self.bottleneck))

    def expected_params(self, vit: VisionTransformer) -> int:
        d, r = vit.embed_dim, self.bottleneck
        return 2 * len(vit.blocks) * (2 * d * r + r + d)
