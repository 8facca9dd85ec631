"""Small models that every method is put into."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from vtab_peft.benchmark.method_checks.tiny_models import sample_images, tiny


@pytest.fixture(params=["plain", "LayerScale"])
def vit(request: pytest.FixtureRequest) -> VisionTransformer:
    return tiny(request.param)


@pytest.fixture
def images() -> torch.Tensor:
    """[4, 3, 32, 32]"""
    return sample_images()
