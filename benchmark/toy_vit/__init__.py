"""`toy_vit`: a small plain ViT whose pretrained weights lie in the repository, so that `toy` runs anywhere.

Architecture and key names are timm's own; `pretrain.py` made the weights, README.md says how.

"""

from pathlib import Path

from timm.models.vision_transformer import VisionTransformer

WEIGHTS = Path(__file__).parent / "toy_vit.safetensors"
"""fp16; the state dict of `build()`."""
IMAGE_SIZE = 64
MEAN = STD = (0.5, 0.5, 0.5)
"""As timm's AugReg ViTs, so that pixels are in [-1, 1]."""


def build(num_classes: int = 0, image_size: int = IMAGE_SIZE) -> VisionTransformer:
    """The architecture with timm's random initialisation: 17 tokens with the class token, 0.89 M parameters.

    Ours: 4 wide blocks rather than 6 narrow ones, because few large products suit a CPU.
    """
    return VisionTransformer(
        img_size=image_size, patch_size=16, embed_dim=128, depth=4, num_heads=4, num_classes=num_classes
    )
