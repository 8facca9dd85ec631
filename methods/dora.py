"""DoRA (Liu et al., ICML 2024, arXiv:2402.09353): a weight's row lengths and their directions are trained apart."""

from dataclasses import dataclass

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Paper, register
from .lora import LoRA, LowRank
from .updates import Transform, site_shapes, transform_linears


class Decomposed(Transform):
    """W -> m V / |V| row by row, where V = W + scale * B A."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:  # weight: [outputs, inputs]
        super().__init__()
        self.direction = LowRank(weight, rank, scale)
        self.magnitude = nn.Parameter(weight.norm(dim=1))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        directed = weight + self.direction.delta()
        lengths = directed.norm(dim=1).detach()  # a constant of the gradient: section 4.3 of the paper
        return (self.magnitude / lengths)[:, None] * directed, bias


@register("dora")
@dataclass(frozen=True)
class DoRA(LoRA):
    """LoRA on the directions of a weight's rows, whose lengths are trained too."""

    title = "DoRA"
    paper = Paper("ICML", 2024, "2402.09353", "NVlabs/DoRA")
    equation = r"W' = m \odot \frac{W + \frac{\alpha}{r} B A}{\lVert W + \frac{\alpha}{r} B A \rVert_{row}}"

    def inject(self, vit: VisionTransformer) -> None:
        transform_linears(vit, self.sites, lambda weight, _: Decomposed(weight, self.rank, self.scale()))

    def expected_params(self, vit: VisionTransformer) -> int:
        return super().expected_params(vit) + sum(outputs for _, outputs in site_shapes(vit, self.sites))
