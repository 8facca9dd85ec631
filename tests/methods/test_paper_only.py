"""Compare methods without official numbers with the equations of their papers, written again in numpy."""

import copy
import math

import numpy as np
import pytest
import torch
from golden_blocks import one_block_vit
from in_numpy import Array, assert_equal, gelu, linear, numbers, random, randomised
from raises import raises_naming
from refusal import assert_refused
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from vtab_peft.methods import parse
from vtab_peft.methods.base import check_backbone
from vtab_peft.methods.hta import Householder
from vtab_peft.methods.vqt import QueriedBlocks, attend

# HTA


def test_hta_is_equation_6() -> None:
    d = 12
    update = randomised(Householder(torch.empty(d, d), rank=2))
    assert isinstance(update, Householder)
    x, weight = random(3, 5, d), random(d, d, seed=1)
    left, right, diagonal = (numbers(p) for p in (update.v_in, update.v_out, update.diagonal))
    down, up = numbers(update.low_rank.a).T, numbers(update.low_rank.b).T  # tokens are rows in the paper: x W
    identity = np.eye(d)
    householder = (identity - np.outer(left, left)) @ np.diag(diagonal) @ (identity - np.outer(right, right))
    expected = numbers(x) @ (numbers(weight).T + down @ up + householder)
    assert_equal(x @ weight.T + update(x), expected)
    assert_equal(x @ (weight + update.delta()).T, expected)


def test_hta_starts_as_two_cancelling_reflections() -> None:
    update = Householder(torch.empty(768, 768), rank=1)
    for v in (update.v_in, update.v_out):
        householder = torch.eye(768) - torch.outer(v, v)
        torch.testing.assert_close(householder @ householder, torch.eye(768), rtol=0, atol=1e-5)
    assert not torch.equal(update.v_in, update.v_out)
    assert not update.delta().any()


def test_hta_counts_are_those_of_the_rank_ablation() -> None:
    """Table 7 of the appendix gives 0.22, 0.30 and 0.44 million with a mean VTAB head of 38,045."""
    vit = VisionTransformer(num_classes=0)
    for rank, millions in ((1, 0.22), (2, 0.30), (4, 0.44)):
        assert round((parse(f"hta(rank={rank})").expected_params(vit) + 38_045) / 1e6, 2) == millions


def test_hta_refuses_weights_that_are_not_square() -> None:
    assert_refused("hta(sites='q,fc1')", "hta", "sites='q,fc1'", "fc1")
    assert_refused("hta(rank=0)", "rank", 0)


# VQT


def layer_norm(x: Array, norm: nn.LayerNorm) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps) * numbers(norm.weight) + numbers(
        norm.bias
    )


def one_image_through(block: nn.Module, tokens: Array, readable: int) -> Array:
    """Run the block on tokens [n, d], of which the first `readable` have keys and values."""
    attention = block.get_submodule("attn")
    h = layer_norm(tokens, block.norm1)
    q, k, v = np.split(linear(h, attention.qkv), 3, axis=-1)
    d_head = q.shape[-1] // attention.num_heads
    read = np.zeros_like(q)
    for head in range(attention.num_heads):
        own = slice(head * d_head, (head + 1) * d_head)
        scores = np.exp(q[:, own] @ k[:readable, own].T / math.sqrt(d_head))
        read[:, own] = scores / scores.sum(-1, keepdims=True) @ v[:readable, own]
    tokens = tokens + linear(read, attention.proj)
    hidden = gelu(linear(layer_norm(tokens, block.norm2), block.get_submodule("mlp.fc1")))
    return tokens + linear(hidden, block.get_submodule("mlp.fc2"))


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x)


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_vqt_sums_outputs_of_queries_without_keys(pooling: str) -> None:
    plain = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=0, global_pool=pooling
    )
    randomised(plain)
    vit = copy.deepcopy(plain)
    parse("vqt(tokens=3)").inject(vit)
    vit.double().eval()
    queried, weights = vit.blocks[0], vit.attn_pool.weights
    assert isinstance(queried, QueriedBlocks)
    with torch.no_grad():
        weights.copy_(random(7))
    images = random(2, 3, 16, 16)
    for image, features in zip(images, vit(images), strict=True):
        x = numbers(plain._pos_embed(plain.patch_embed(image[None]))[0])
        outputs = []
        for block, queries in zip(plain.blocks, queried.queries, strict=True):
            together = one_image_through(block, np.concatenate([x, numbers(queries)]), readable=len(x))
            x, output = together[: len(x)], together[len(x) :]
            outputs += list(output)
        own = layer_norm(x, plain.norm)[0] if pooling == "token" else layer_norm(x[1:].mean(0), plain.fc_norm)
        summands = np.stack([unit(summand) for summand in (own, *outputs)])
        assert_equal(features, numbers(weights) @ summands)


def test_vqt_attention_equals_masked_timm_attention() -> None:
    attention = randomised(Attention(24, num_heads=3, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm))
    queries, x = random(2, 3, 24), random(2, 5, 24, seed=1)
    visible = torch.arange(8) < 5
    both = attention(torch.cat([x, queries], dim=1), attn_mask=visible.expand(2, 3, 8, 8))
    torch.testing.assert_close(attend(attention, queries, x), both[:, 5:], rtol=0, atol=1e-12)


def test_vqt_needs_no_gradient_through_the_blocks() -> None:
    vit = one_block_vit(24)
    parse("vqt").inject(vit)
    seen: list[bool] = []
    vit.blocks[0].blocks[0].register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    assert vit(torch.randn(2, 3, 16, 16)).requires_grad
    assert seen == [False]


def test_vqt_starts_like_prompts_with_a_plain_sum() -> None:
    vit = VisionTransformer(num_classes=0)
    parse("vqt").inject(vit)
    bound = math.sqrt(6 / (3 * 16 * 16 + 768))
    queries = vit.blocks[0].queries
    assert queries.shape == (12, 10, 768)
    assert 0.99 * bound < float(queries.detach().abs().max()) <= bound
    assert vit.attn_pool.weights.tolist() == [1.0] * 121


def test_vqt_refuses_attention_pooling_and_zero_tokens() -> None:
    vit = one_block_vit(24, global_pool="map", class_token=False)
    with raises_naming(ValueError, "vqt", "attention"):
        check_backbone(parse("vqt"), vit)
    assert_refused("vqt(tokens=0)", "tokens", 0)
