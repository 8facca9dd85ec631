"""An incorrect plug-in: it should train the LayerNorm weights only, but unfreezes other weights of the blocks too."""

from timm.models.vision_transformer import VisionTransformer
from vtab_peft.methods import Method, method


@method("unfreezes_too_much")
class UnfreezesTooMuch(Method):
    """Trains the weight of each LayerNorm of the blocks."""

    title = "Unfreezes too much"
    equation = r"y = \gamma \odot \tfrac{x - \mu}{\sigma} + \beta, \quad \gamma \text{ learned}"
    targets = "LayerNorms of the blocks"
    evidence = "closed form"

    def inject(self, vit: VisionTransformer) -> None:
        for name, parameter in vit.named_parameters():
            if name.startswith("blocks") and ("norm" in name or name.endswith("weight")):  # bug: `or` for `and`
                parameter.requires_grad_(True)

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * 2 * vit.embed_dim
