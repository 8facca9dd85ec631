"""What is done for speed computes the same: attention in plain steps, patch embeddings as products."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from vtab_peft.benchmark.training import backbone as backbones
from vtab_peft.benchmark.training.fast_path import PatchProduct, ready_for_bf16


def test_attention_in_plain_steps_computes_what_the_fused_kernel_does(backbone: backbones.Backbone) -> None:
    images = torch.randn(4, 3, backbone.image_size, backbone.image_size)
    plain, gpu = deepcopy(backbone.vit), deepcopy(backbone.vit)
    ready_for_bf16(plain, "cpu")
    ready_for_bf16(gpu, "cuda")  # what is done for a device can be looked at on any
    fused = deepcopy(plain)
    for block in fused.blocks:
        block.attn.fused_attn = True
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features, *others = (vit(images).float() for vit in (plain, fused, gpu))
    for other in others:
        assert not torch.equal(features, other)  # by another way
        away = (features - other).norm() / other.norm()
        assert float(away) < 0.02


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sides", [(4, 4), (2, 3)])
def test_a_patch_product_is_the_convolution(sides: tuple[int, int], bias: bool) -> None:
    """In float64, with its gradients; pixels that no window holds are left out."""
    conv = nn.Conv2d(3, 10, sides, sides, bias=bias).double()
    images, ways = torch.randn(2, 3, 17, 12, dtype=torch.float64), []
    for way in (conv, PatchProduct.of(conv)):
        conv.zero_grad()
        found = way(images)
        found.square().sum().backward()
        ways.append([found, *(parameter.grad.clone() for parameter in conv.parameters() if parameter.grad is not None)])
    for one, other in zip(*ways, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_only_patch_embeddings_become_products(backbone: backbones.Backbone) -> None:
    """Under the names they had; whatever overlaps stays."""
    vit = deepcopy(backbone.vit)
    vit.add_module("other", nn.Conv2d(3, 4, 3, padding=1))
    names = list(vit.state_dict())
    ready_for_bf16(vit, "cuda")
    assert [name for name, module in vit.named_modules() if isinstance(module, PatchProduct)] == ["patch_embed.proj"]
    assert list(vit.state_dict()) == names
