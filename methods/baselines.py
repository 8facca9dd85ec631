"""The baselines every method is measured against: parts of the model itself learn, and nothing is added."""

from dataclasses import dataclass

from timm.layers.layer_scale import LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .anatomy import BlockRef, around, blocks_of, final_norm, linear_biases, mlp_width
from .base import Method, Paper, register, require_positive


@register("linear")
@dataclass(frozen=True)
class Linear(Method):
    """Only the head learns; the features are computed once."""

    title = "Linear probe"
    paper = None
    equation = r"\text{logits} = W_{head}\,h + b_{head}"
    places = "head"
    backbones = ("vit", "swin")
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
    backbones = ("vit", "swin")
    evidence = "closed form"
    lr = 1e-4  # ours: at 1e-3 full fine-tuning falls to 58.5 mean accuracy (OSU-MLB/ViT_PEFT_Vision's released runs)

    def inject(self, vit: VisionTransformer) -> None:
        vit.requires_grad_(True)

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        outside = sum(p.numel() for module in around(vit) for p in module.parameters(recurse=False))
        return outside + sum(map(_block_params, blocks_of(vit)))


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
    backbones = ("vit", "swin")
    evidence = "closed form"
    lr = Full.lr  # ours: it moves whole pretrained matrices as `full` does
    search = {"blocks": (1, 2, 4)}  # KMnP/vpt src/models/vit_models.py:70-87

    def __post_init__(self) -> None:
        require_positive(blocks=self.blocks)

    def inject(self, vit: VisionTransformer) -> None:
        blocks = [place.block for place in blocks_of(vit)]
        if self.blocks > len(blocks):
            raise ValueError(f"blocks={self.blocks} exceeds the {len(blocks)} of this backbone")
        for module in (*blocks[-self.blocks :], vit.get_submodule(final_norm(vit))):
            module.requires_grad_(True)

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(map(_block_params, blocks_of(vit)[-self.blocks :])) + 2 * vit.num_features


@register("layernorm")
@dataclass(frozen=True)
class LayerNorm(Method):
    """Weight and bias of every LayerNorm learn (LN-Tune of Basu et al., AAAI 2024)."""

    title = "LayerNorm"
    paper = Paper("AAAI", 2024, "2304.01917")
    equation = r"y = \gamma \odot \tfrac{x - \mu}{\sigma} + \beta, \quad \gamma, \beta \text{ learned}"
    places = "all LayerNorms"
    backbones = ("vit", "swin")
    evidence = "closed form"

    def inject(self, vit: VisionTransformer) -> None:
        for module in vit.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        outside = (2 * module.weight.numel() for module in around(vit) if isinstance(module, nn.LayerNorm))
        return sum(outside) + sum(map(_block_norm_params, blocks_of(vit)))


@register("bitfit")
@dataclass(frozen=True)
class BitFit(Method):
    """Every bias learns: of linear maps, LayerNorms and the patch embedding (Ben Zaken et al., ACL 2022)."""

    title = "BitFit"
    paper = Paper("ACL", 2022, "2106.10199", "benzakenelad/BitFit")
    equation = r"y = W x + b, \quad b \text{ learned}"
    places = "all biases"
    backbones = ("vit", "swin")
    evidence = "closed form"

    def inject(self, vit: VisionTransformer) -> None:
        for module in vit.modules():
            if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
                bias.requires_grad_(True)

    def merge(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        outside = (
            bias.numel() for module in around(vit) if isinstance(bias := getattr(module, "bias", None), nn.Parameter)
        )
        return sum(outside) + sum(linear_biases(place) + _block_norm_params(place) // 2 for place in blocks_of(vit))


def _block_params(place: BlockRef) -> int:
    """Everything in one block of a plain model."""
    d, hidden, block = place.width, mlp_width(place.block), place.block
    scales = 2 * d if isinstance(getattr(block, "ls1", None), LayerScale) else 0
    positions = sum(p.numel() for name, p in block.named_parameters() if "relative_position" in name)  # of Swin
    linears = 3 * d * d + d * d + 2 * d * hidden + linear_biases(place)
    return linears + _block_norm_params(place) + scales + positions


def _block_norm_params(place: BlockRef) -> int:
    """LayerNorms in one block of a plain model, half of it biases: before its branches and, in some, on q and k."""
    per_head = getattr(place.block.get_submodule("attn"), "q_norm", None)
    return 4 * place.width + (4 * per_head.normalized_shape[0] if isinstance(per_head, nn.LayerNorm) else 0)
