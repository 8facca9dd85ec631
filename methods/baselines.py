"""Baselines that train parts of the pretrained model and add nothing."""

from timm.layers.layer_scale import LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .anatomy import BlockRef, blocks_of, final_norm, linear_biases, mlp_hidden, mlp_width, modules_outside_blocks
from .arguments import PositiveInt
from .base import Method, Paper, method


class _Selective(Method):
    """Base of methods that unfreeze pretrained parameters, so that merging has nothing to do."""

    backbones = ("vit", "swin")
    evidence = "closed form"

    def merge(self, vit: VisionTransformer) -> None:
        pass


@method("linear")
class Linear(_Selective):
    """Trains only the head, on features that are computed once."""

    title = "Linear probe"
    equation = r"\text{logits} = W_{head}\,h + b_{head}"
    targets = "head"
    frozen_features = True

    def inject(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        return 0


@method("full")
class Full(_Selective):
    """Trains all parameters."""

    title = "Full fine-tuning"
    equation = r"\theta \leftarrow \theta - \eta \nabla_\theta L"
    targets = "everything"
    lr = 1e-4  # ours: at 1e-3 full fine-tuning falls to 58.5 mean accuracy (OSU-MLB/ViT_PEFT_Vision's released runs)

    def inject(self, vit: VisionTransformer) -> None:
        vit.requires_grad_(True)

    def expected_params(self, vit: VisionTransformer) -> int:
        outside = sum(p.numel() for module in modules_outside_blocks(vit) for p in module.parameters(recurse=False))
        return outside + sum(map(_block_params, blocks_of(vit)))


@method("partial")
class Partial(_Selective):
    """Trains the last blocks and the final norm (KMnP/vpt src/models/vit_models.py:70-87)."""

    blocks: PositiveInt = 1
    """Number of trained blocks."""
    title = "Partial"
    equation = r"\theta_{l > L - k} \leftarrow \theta_{l > L - k} - \eta \nabla L"
    targets = "last block, final norm"
    lr = Full.lr  # ours: like `full`, it trains whole pretrained matrices
    search = {"blocks": (1, 2, 4)}

    def inject(self, vit: VisionTransformer) -> None:
        blocks = [ref.block for ref in blocks_of(vit)]
        if self.blocks > len(blocks):
            raise ValueError(f"blocks={self.blocks} exceeds the {len(blocks)} of this backbone")
        for module in (*blocks[-self.blocks :], vit.get_submodule(final_norm(vit))):
            module.requires_grad_(True)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(map(_block_params, blocks_of(vit)[-self.blocks :])) + 2 * vit.num_features


@method("layernorm")
class LayerNorm(_Selective):
    """Trains weight and bias of every LayerNorm (LN-Tune of Basu et al., AAAI 2024)."""

    title = "LayerNorm"
    paper = Paper("AAAI", 2024, "2304.01917")
    equation = r"y = \gamma \odot \tfrac{x - \mu}{\sigma} + \beta, \quad \gamma, \beta \text{ learned}"
    targets = "all LayerNorms"

    def inject(self, vit: VisionTransformer) -> None:
        for module in vit.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)

    def expected_params(self, vit: VisionTransformer) -> int:
        outside = [module for module in modules_outside_blocks(vit) if isinstance(module, nn.LayerNorm)]
        return sum(2 * norm.weight.numel() for norm in outside) + sum(map(_block_norm_params, blocks_of(vit)))


@method("bitfit")
class BitFit(_Selective):
    """Trains every bias: of linear maps, LayerNorms and the patch embedding (Ben Zaken et al., ACL 2022)."""

    title = "BitFit"
    paper = Paper("ACL", 2022, "2106.10199", "benzakenelad/BitFit")
    evidence = "authors' module"
    equation = r"y = W x + b, \quad b \text{ learned}"
    targets = "all biases"

    def inject(self, vit: VisionTransformer) -> None:
        for module in vit.modules():
            if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
                bias.requires_grad_(True)

    def expected_params(self, vit: VisionTransformer) -> int:
        biases = (getattr(module, "bias", None) for module in modules_outside_blocks(vit))
        outside = sum(bias.numel() for bias in biases if isinstance(bias, nn.Parameter))
        return outside + sum(linear_biases(ref) + _block_norm_params(ref) // 2 for ref in blocks_of(vit))


def _block_params(ref: BlockRef) -> int:
    """Count all parameters of an unmodified block."""
    d, block = ref.width, ref.block
    scales = 2 * d if isinstance(getattr(block, "ls1", None), LayerScale) else 0
    extra = ("relative_position", "lambda_", "sub_norm")  # of Swin; of differential attention
    rest = sum(p.numel() for name, p in block.named_parameters() if any(part in name for part in extra))
    linears = 3 * d * d + d * d + d * (mlp_width(block) + mlp_hidden(block)) + linear_biases(ref)
    return linears + _block_norm_params(ref) + scales + rest


def _block_norm_params(ref: BlockRef) -> int:
    """Count the LayerNorm parameters of an unmodified block; half are biases.

    Some models also normalise queries, keys, and the inputs of the last linear map of attention and MLP.
    """
    parts = (ref.block.get_submodule("attn"), ref.block.get_submodule("mlp"))
    more = (getattr(part, name, None) for part in parts for name in ("q_norm", "k_norm", "norm"))
    return 4 * ref.width + sum(2 * norm.weight.numel() for norm in more if isinstance(norm, nn.LayerNorm))
