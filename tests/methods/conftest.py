"""Small models that every method is put into."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

PLAIN = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
BACKBONES = {"vit": PLAIN, "vit_layerscale": {**PLAIN, "init_values": 0.1}}


def tiny(kind: str) -> VisionTransformer:
    """A frozen pretrained-like ViT of 5 tokens: no tensor is zero, so that nothing hides behind one."""
    generator = torch.Generator().manual_seed(0)
    vit = VisionTransformer(**BACKBONES[kind]).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return vit.requires_grad_(False)


@pytest.fixture(params=list(BACKBONES))
def vit(request: pytest.FixtureRequest) -> VisionTransformer:
    return tiny(request.param)


@pytest.fixture
def images() -> torch.Tensor:
    """[4, 3, 32, 32]"""
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
