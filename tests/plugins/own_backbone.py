"""A plug-in that registers a backbone with timm: a ViT of two blocks for images of 32 pixels."""

from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models.vision_transformer import VisionTransformer

default_cfgs = {"vit_mini_patch8_32": {"input_size": (3, 32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}}


@register_model
def vit_mini_patch8_32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Return the model; timm passes image size and other options."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return build_model_with_cfg(VisionTransformer, "vit_mini_patch8_32", pretrained, **(sizes | kwargs))
