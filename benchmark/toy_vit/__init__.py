"""`toy_vit`: a small plain ViT with pretrained weights in the repository, so that the suite `toy` needs no download.

Architecture and tensor names are timm's.  perf/toy_vit_pretrain.py made the weights, as README.md describes.
"""

from pathlib import Path

from timm.models.vision_transformer import VisionTransformer

WEIGHTS = Path(__file__).parent / "toy_vit.safetensors"
"""The state dict of `build()` in fp16."""
IMAGE_SIZE = 64
MEAN = STD = (0.5, 0.5, 0.5)
"""Normalisation of timm's AugReg ViTs: pixels are in [-1, 1]."""


def build(num_classes: int = 0, image_size: int = IMAGE_SIZE) -> VisionTransformer:
    """Build the architecture with timm's random initialisation: 17 tokens with the class token, 0.89 M parameters.

    Our choice: 4 wide blocks rather than 6 narrow ones, because a CPU prefers few large products.
    """
    return VisionTransformer(
        img_size=image_size, patch_size=16, embed_dim=128, depth=4, num_heads=4, num_classes=num_classes
    )
