"""Fast modules compute the same as timm's: plain attention, linear patch embedding, pruned last block."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import nn
from vtab_peft.benchmark.engine import backbone as backbones
from vtab_peft.benchmark.engine.fast_path import (
    ClassTokenAttention,
    PatchEmbedLinear,
    prepare_for_bf16,
    prune_last_block_to_cls,
)
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.method_checks.tiny_models import (
    NO_DROP_PATH,
    inject_copy,
    sample_images,
    tiny,
    train_few_steps,
)
from vtab_peft.benchmark.spec import Recipe
from vtab_peft.methods import METHODS, parse


def test_plain_attention_equals_the_fused_kernel(backbone: backbones.Backbone) -> None:
    images = torch.randn(4, 3, backbone.image_size, backbone.image_size)
    plain, gpu = deepcopy(backbone.vit), deepcopy(backbone.vit)
    prepare_for_bf16(plain, "cpu")
    prepare_for_bf16(gpu, "cuda")  # the result can be used on any device
    fused = deepcopy(plain)
    for block in fused.blocks:
        block.attn.fused_attn = True
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features, *others = (vit(images).float() for vit in (plain, fused, gpu))
    for other in others:
        assert not torch.equal(features, other)  # another kernel
        away = (features - other).norm() / other.norm()
        assert float(away) < 0.02


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sides", [(4, 4), (2, 3)])
def test_patch_embed_linear_equals_the_convolution(sides: tuple[int, int], bias: bool) -> None:
    """Compare in float64 with gradients; pixels beyond the last whole patch are dropped."""
    conv = nn.Conv2d(3, 10, sides, sides, bias=bias).double()
    images, ways = torch.randn(2, 3, 17, 12, dtype=torch.float64), []
    for way in (conv, PatchEmbedLinear.from_conv(conv)):
        conv.zero_grad()
        found = way(images)
        found.square().sum().backward()
        ways.append([found, *(parameter.grad.clone() for parameter in conv.parameters() if parameter.grad is not None)])
    for one, other in zip(*ways, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_only_patch_embeddings_are_replaced(backbone: backbones.Backbone) -> None:
    """Names of tensors stay, and so does an overlapping convolution."""
    vit = deepcopy(backbone.vit)
    vit.add_module("other", nn.Conv2d(3, 4, 3, padding=1))
    names = list(vit.state_dict())
    prepare_for_bf16(vit, "cuda")
    assert [name for name, module in vit.named_modules() if isinstance(module, PatchEmbedLinear)] == [
        "patch_embed.proj"
    ]
    assert list(vit.state_dict()) == names


@pytest.mark.parametrize("backbone", ["plain", "LayerScale", "registers", "pre-norm"])
@pytest.mark.parametrize("method", ["full", "lora(sites='qkvo,fc1,fc2')", "aoft_adapter", "ssf"])
def test_pruned_last_block_gives_the_same_features(method: str, backbone: str) -> None:
    """Compare features and gradients in float64; the names of all tensors stay."""
    whole = train_few_steps(tiny(backbone), parse(method))[0].vit.double().train()
    short, seen = deepcopy(whole), []
    assert prune_last_block_to_cls(short)
    assert list(short.state_dict()) == list(whole.state_dict())
    for module in (short.blocks[-1].attn.proj, short.blocks[-1].mlp):
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    ways = []
    for vit in (whole, short):
        vit.zero_grad()
        features = vit(sample_images().double())
        features.square().sum().backward()
        ways.append([features, *(p.grad for p in vit.parameters() if p.requires_grad)])
    assert seen == [(len(sample_images()), 1, short.embed_dim)] * 2
    for one, other in zip(*ways, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norms", [{}, {"qk_norm": True, "scale_norm": True, "norm_layer": nn.LayerNorm}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_class_token_attention_equals_timms(norms: dict[str, Any], dtype: torch.dtype) -> None:
    attention = Attention(24, num_heads=3, qkv_bias=True, **norms).to(dtype)
    x = torch.randn(2, 10, 24, dtype=dtype)
    expected = attention(x)[:, :1]
    pruned = ClassTokenAttention(attention)
    assert list(pruned.state_dict()) == list(attention.state_dict())
    rtol, atol = (1e-10, 1e-12) if dtype == torch.float64 else (0.05, 0.01)  # bf16 has 8 bits
    torch.testing.assert_close(pruned(x), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("method", "backbone", "recipe"),
    [
        ("lora", "mean pooling", NO_DROP_PATH),
        ("lora", "attention pooling", NO_DROP_PATH),
        ("lora", "Swin", NO_DROP_PATH),
        ("lora", "plain", replace(NO_DROP_PATH, mlp_dropout=0.1)),
        ("lora", "plain", replace(NO_DROP_PATH, branch_dropout=0.1)),
        ("fact_tt", "plain", NO_DROP_PATH),  # dropout of the attention's output
        ("convpass", "plain", NO_DROP_PATH),  # convolves over the grid
        ("vpt_deep", "plain", NO_DROP_PATH),  # has additional tokens inside the block
    ],
)
def test_blocks_whose_other_tokens_matter_stay(method: str, backbone: str, recipe: Recipe) -> None:
    vit = inject(tiny(backbone), parse(method), recipe, 0).vit
    kinds = [type(module) for module in vit.modules()]
    assert not prune_last_block_to_cls(vit)
    assert [type(module) for module in vit.modules()] == kinds


@pytest.mark.slow
def test_most_methods_allow_the_pruned_block() -> None:
    short = {name for name in METHODS if prune_last_block_to_cls(inject_copy(tiny("plain"), parse(name)).vit)}
    assert {"linear", "full", "bitfit", "lora", "bi_lora", "aoft_lora", "aoft_adapter", "ssf", "glora"} <= short
    assert len(short) > len(METHODS) / 2


def test_a_block_that_differs_from_timms_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a later timm with another forward pass."""
    plain_forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, x, **masks: plain_forward(self, x, **masks) + x.sin())
    vit = tiny("plain")
    images, last, training = sample_images(), vit.blocks[-1], vit.training
    expected = vit(images)
    with pytest.warns(UserWarning, match=timm.__version__):
        assert not prune_last_block_to_cls(vit)
    assert vit.blocks[-1] is last
    assert vit.training == training
    assert torch.equal(vit(images), expected)


@pytest.mark.parametrize("place", ["", ".attn"])
def test_a_hooked_or_patched_last_block_stays(place: str) -> None:
    """The copied block would lack what a method adds by a hook or by an instance's `forward`."""
    for patch in (
        lambda module: module.register_forward_hook(lambda _, args, output: output),
        lambda module: module.register_forward_pre_hook(lambda _, args: args),
        lambda module: setattr(module, "forward", partial(type(module).forward, module)),
    ):
        vit = tiny("plain")
        last = vit.blocks[-1]
        patch(vit.get_submodule(f"blocks.1{place}"))
        assert not prune_last_block_to_cls(vit)
        assert vit.blocks[-1] is last


class Mixing(nn.Module):
    """Adds a multiple of the mean over tokens; initially none of it."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.share = norm, nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [b, n, d]
        return self.norm(x) + self.share * x.mean(dim=1, keepdim=True)


def test_a_module_that_will_read_several_tokens_keeps_the_block_whole() -> None:
    vit = tiny("plain")
    last, mixing = vit.blocks[-1], Mixing(vit.blocks[-1].norm2)
    last.norm2 = mixing
    with pytest.warns(UserWarning, match="several tokens"):
        assert not prune_last_block_to_cls(vit)
    assert vit.blocks[-1] is last
    assert mixing.share.item() == 0.0


def test_the_comparison_with_timm_draws_no_random_numbers() -> None:
    vit, state = tiny("plain"), torch.get_rng_state()
    prune_last_block_to_cls(vit)
    assert torch.equal(torch.get_rng_state(), state)
