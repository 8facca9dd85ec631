"""Meant to train the LayerNorms' weights; a slip also unfreezes the other weights of the blocks."""

from dataclasses import dataclass

from timm.models.vision_transformer import VisionTransformer
from vtab_peft.methods import Method, register


@register("unfreezes_too_much")
@dataclass(frozen=True)
class UnfreezesTooMuch(Method):
    """The weight of each LayerNorm of the blocks learns."""

    title = "Unfreezes too much"
    paper = None
    equation = r"y = \gamma \odot \tfrac{x - \mu}{\sigma} + \beta, \quad \gamma \text{ learned}"
    places = "LayerNorms of the blocks"
    evidence = "closed form"

    def inject(self, vit: VisionTransformer) -> None:
        for name, parameter in vit.named_parameters():
            if name.startswith("blocks") and ("norm" in name or name.endswith("weight")):  # a slip: `or` for `and`
                parameter.requires_grad_(True)

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * 2 * vit.embed_dim
