"""The baselines every method is measured against: linear probe, full fine-tuning, BitFit."""

from dataclasses import dataclass
from typing import cast

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .base import Method, Paper, register
from .updates import mlp_width


@register("linear")
@dataclass(frozen=True)
class Linear(Method):
    """Only the head learns; the features are computed once."""

    title = "Linear probe"
    paper = None
    equation = r"\text{logits} = W_{head}\,h + b_{head}"
    places = "head"
    evidence = "closed form"
    frozen_features = True

    def inject(self, vit: VisionTransformer) -> None:
        pass

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        return 0


@register("full")
@dataclass(frozen=True)
class Full(Method):
    """Everything learns."""

    title = "Full fine-tuning"
    paper = None
    equation = r"\theta \leftarrow \theta - \eta \nabla_\theta L"
    places = "everything"
    evidence = "closed form"
    lr = 1e-4  # ours: at 1e-3 full fine-tuning falls to 58.5 mean accuracy (OSU-MLB/ViT_PEFT_Vision's released runs)

    def inject(self, vit: VisionTransformer) -> None:
        vit.requires_grad_(True)

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        d, hidden = vit.embed_dim, mlp_width(vit)
        projection = cast(nn.Conv2d, vit.patch_embed.proj)
        embedding = projection.weight.numel() + d
        tokens = sum(t.numel() for t in (vit.cls_token, vit.reg_token, vit.pos_embed) if t is not None)
        scales = 2 * d if not isinstance(vit.blocks[0].ls1, nn.Identity) else 0
        block = (3 * d * d + 3 * d) + (d * d + d) + (2 * d * hidden + hidden + d) + 4 * d + scales
        return embedding + tokens + len(vit.blocks) * block + 2 * d


@register("bitfit")
@dataclass(frozen=True)
class BitFit(Method):
    """Every bias learns: of linear maps, LayerNorms and the patch embedding (Ben Zaken et al., ACL 2022)."""

    title = "BitFit"
    paper = Paper("ACL", 2022, "2106.10199", "benzakenelad/BitFit")
    equation = r"y = W x + b, \quad b \text{ learned}"
    places = "all biases"
    evidence = "closed form"

    def inject(self, vit: VisionTransformer) -> None:
        for module in vit.modules():
            if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
                bias.requires_grad_(True)

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        d = vit.embed_dim
        return 2 * d + len(vit.blocks) * (7 * d + mlp_width(vit))
