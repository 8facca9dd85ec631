"""The baselines every method is measured against: parts of the model itself learn, and nothing is added."""

from dataclasses import dataclass
from typing import cast

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .base import Method, Paper, at_least_one, register
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
        d = vit.embed_dim
        projection = cast(nn.Conv2d, vit.patch_embed.proj)
        embedding = projection.weight.numel() + d
        tokens = sum(t.numel() for t in (vit.cls_token, vit.reg_token, vit.pos_embed) if t is not None)
        return embedding + tokens + len(vit.blocks) * _block_params(vit) + 2 * d


@register("partial")
@dataclass(frozen=True)
class Partial(Method):
    """The last blocks learn, and the final norm."""

    blocks: int = 1
    """How many."""
    title = "Partial"
    paper = None
    equation = r"\theta_{l > L - k} \leftarrow \theta_{l > L - k} - \eta \nabla L"
    places = "last block, final norm"
    evidence = "closed form"
    lr = Full.lr  # ours: it moves whole pretrained matrices as `full` does
    search = {"blocks": (1, 2, 4)}  # KMnP/vpt src/models/vit_models.py:70-87

    def __post_init__(self) -> None:
        at_least_one(blocks=self.blocks)

    def inject(self, vit: VisionTransformer) -> None:
        if self.blocks > len(vit.blocks):
            raise ValueError(f"blocks={self.blocks} exceeds the {len(vit.blocks)} of this backbone")
        for module in (*vit.blocks[-self.blocks :], vit.norm, vit.fc_norm):
            module.requires_grad_(True)

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        return self.blocks * _block_params(vit) + 2 * vit.embed_dim


@register("layernorm")
@dataclass(frozen=True)
class LayerNorm(Method):
    """Weight and bias of every LayerNorm learn (LN-Tune of Basu et al., AAAI 2024)."""

    title = "LayerNorm"
    paper = Paper("AAAI", 2024, "2304.01917")
    equation = r"y = \gamma \odot \tfrac{x - \mu}{\sigma} + \beta, \quad \gamma, \beta \text{ learned}"
    places = "all LayerNorms"
    evidence = "closed form"

    def inject(self, vit: VisionTransformer) -> None:
        for module in vit.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        d = vit.embed_dim
        outside = sum(isinstance(norm, nn.LayerNorm) for norm in (vit.norm_pre, vit.norm, vit.fc_norm))
        return 2 * d * outside + len(vit.blocks) * _block_norm_params(vit)


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


def _block_params(vit: VisionTransformer) -> int:
    """Everything in one block of the plain `vit`."""
    d, hidden = vit.embed_dim, mlp_width(vit)
    scales = 2 * d if not isinstance(vit.blocks[0].ls1, nn.Identity) else 0
    return (3 * d * d + 3 * d) + (d * d + d) + (2 * d * hidden + hidden + d) + _block_norm_params(vit) + scales


def _block_norm_params(vit: VisionTransformer) -> int:
    """LayerNorms in one block of the plain `vit`: before its branches and, in some models, on queries and keys."""
    per_head = vit.blocks[0].get_submodule("attn.q_norm")
    return 4 * vit.embed_dim + (4 * per_head.normalized_shape[0] if isinstance(per_head, nn.LayerNorm) else 0)
