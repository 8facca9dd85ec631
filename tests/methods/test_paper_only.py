"""Compare methods without official numbers with the equations of their papers, written again in numpy."""

import copy
import math
from itertools import chain

import numpy as np
import pytest
import torch
from golden_blocks import one_block_vit
from numpy.typing import NDArray
from raises import raises_naming
from refusal import assert_refused
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.benchmark.engine.injection import Injected, inject
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.methods import parse
from vtab_peft.methods.hta import Householder
from vtab_peft.methods.sensitivity import Piece, choose, squared_gradients
from vtab_peft.methods.spt import AdaptedLinear, ChosenEntries
from vtab_peft.methods.updates import UpdatedLinear
from vtab_peft.methods.vqt import QueriedBlocks, attend

Array = NDArray[np.float64]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    """Cast to float64 and move every parameter away from its initial value."""
    module.double().eval()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter += random(*parameter.shape, seed=seed + 100, scale=0.2)
    return module


def numbers(tensor: Tensor | None) -> Array:
    assert tensor is not None
    return tensor.detach().double().numpy()


def assert_equal(ours: Tensor, expected: Array) -> None:
    np.testing.assert_allclose(numbers(ours), expected, rtol=0, atol=1e-10)


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


def linear(x: Array, module: nn.Linear) -> Array:
    return x @ numbers(module.weight).T + numbers(module.bias)


def gelu(x: Array) -> Array:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


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
    with raises_naming(ValueError, "attention"):
        parse("vqt").inject(vit)
    assert_refused("vqt(tokens=0)", "tokens", 0)


# SPT


PIECES = [
    Piece(0, "q", entries=40, whole=20, enough=2),
    Piece(0, "k", entries=40, whole=20, enough=2),
    Piece(0, None, entries=10, whole=10, enough=2),
    Piece(1, "o", entries=60, whole=31, enough=4),
    Piece(1, None, entries=6, whole=6, enough=2),
]


def chosen_one_by_one(sensitivity: Array, budget: int) -> tuple[list[bool], set[int]]:
    """Add entries by falling sensitivity until the next would exceed the budget; then fill it with single ones."""
    owner = np.repeat(np.arange(len(PIECES)), [piece.entries for piece in PIECES])
    ranking = list(np.argsort(-sensitivity, kind="stable"))
    counts, spent, top = [0] * len(PIECES), 0, 0
    for entry in ranking:
        piece = PIECES[owner[entry]]
        count = counts[owner[entry]] + 1
        price = 1 if count < piece.enough else piece.whole - (count - 1) if count == piece.enough else 0
        if spent + price > budget:
            break
        counts[owner[entry]], spent, top = count, spent + price, top + 1
    whole = [count >= piece.enough for count, piece in zip(counts, PIECES, strict=True)]
    singles = {int(entry) for entry in ranking[:top] if not whole[owner[entry]]}
    for entry in ranking[top:]:
        if spent < budget and not whole[owner[entry]]:
            singles.add(int(entry))
            spent += 1
    vectors = {i for i in range(len(owner)) if whole[owner[i]] and PIECES[owner[i]].part is None}
    return whole, singles | vectors


@pytest.mark.parametrize("seed", range(5))
def test_spt_choice_equals_a_choice_entry_by_entry(seed: int) -> None:
    sensitivity = random(156, seed=seed).square() * torch.tensor([1.0, 4.0, 2.0, 1.0, 3.0]).double().repeat_interleave(
        torch.tensor([40, 40, 10, 60, 6])
    )
    for budget in range(0, 100, 7):
        as_whole, chosen = choose(sensitivity, PIECES, budget)
        expected_whole, expected_chosen = chosen_one_by_one(numbers(sensitivity), budget)
        assert as_whole.tolist() == expected_whole
        assert set(chosen.nonzero().flatten().tolist()) == expected_chosen
        modules = sum(piece.whole for piece, yes in zip(PIECES, expected_whole, strict=True) if yes and piece.part)
        assert modules + int(chosen.sum()) == min(budget, 20 + 20 + 10 + 31 + 6)


def test_spt_sensitivity_is_the_sum_of_squared_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtab_peft.methods.sensitivity.LOOK_BATCH", 2)
    monkeypatch.setattr("vtab_peft.methods.sensitivity.LOOK_BATCHES", 3)
    vit = one_block_vit(24)
    images, labels = torch.randn(9, 3, 16, 16), torch.arange(9) % 3
    fc1, norm = vit.blocks[0].mlp.fc1, vit.norm
    batches = looked_at(vit, images)
    ours = squared_gradients(vit, [fc1.weight, fc1.bias, norm.weight], images, labels)
    assert [len(set(batch)) for batch in batches] == [2, 2, 2]
    assert len(set(chain(*batches))) == 6
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in vit.parameters())

    head = nn.Linear(24, 3, bias=False)
    nn.init.trunc_normal_(head.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(vit, head).requires_grad_(True)
    total = np.zeros(len(ours))
    for batch in list(batches):
        model.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        total += np.concatenate([numbers(p.grad).ravel() for p in (fc1.weight, fc1.bias, norm.weight)]) ** 2
    np.testing.assert_allclose(numbers(ours), total, rtol=1e-4, atol=1e-12)


def looked_at(vit: VisionTransformer, images: Tensor) -> list[list[int]]:
    """Return a list that records, per batch given to `vit`, the indices of its images."""
    batches: list[list[int]] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        batches.append([next(i for i, known in enumerate(images) if torch.equal(known, one)) for one in inputs[0]])

    vit.register_forward_pre_hook(record)
    return batches


def test_spt_reads_all_classes_of_images_sorted_by_class() -> None:
    """There are 40 classes of 25 images; the first 512 images have only 21 classes."""
    vit, labels = one_block_vit(24), torch.arange(40).repeat_interleave(25)
    images = torch.randn(1000, 3, 16, 16)
    batches = looked_at(vit, images)
    squared_gradients(vit, [vit.norm.weight], images, labels)
    assert [len(batch) for batch in batches] == [32] * 16
    assert set(labels[[*chain(*batches)]].tolist()) == set(range(40))


def tuned(vit: VisionTransformer, spec: str) -> Injected:
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    return inject(vit, parse(spec), RECIPES["smoke"], 0, (images, torch.arange(8) % 4))


@pytest.mark.parametrize("method", ["spt_lora", "spt_adapter"])
@pytest.mark.parametrize("budget", [32, 100, 2_000, 7_777, 15_000, 10**6])
def test_spt_spends_its_budget_exactly(vit: VisionTransformer, method: str, budget: int) -> None:
    spec = f"{method}(budget={budget})"
    params = tuned(vit, spec).trainable_params()
    assert params == parse(spec).expected_params(vit)
    assert params == min(budget, parse(method).expected_params(vit))


@pytest.mark.parametrize("method", ["spt_lora", "spt_adapter"])
def test_spt_mixes_weights_and_modules_as_identity(vit: VisionTransformer, method: str) -> None:
    images = torch.randn(4, 3, 32, 32)
    model = tuned(vit, f"{method}(budget=7000)").vit.eval()
    wrapper = UpdatedLinear if method == "spt_lora" else AdaptedLinear
    assert any(isinstance(module, wrapper) for module in model.modules())
    assert any(isinstance(module, ChosenEntries) and (module.index < 32**2).any() for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(images), vit(images))


def test_spt_lora_with_single_weights_merges(vit: VisionTransformer) -> None:
    images, method = torch.randn(4, 3, 32, 32), parse("spt_lora(budget=7000)")
    model = tuned(vit, method.spec()).vit.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape)
        expected = model(images)
        assert not torch.allclose(expected, vit(images), atol=1e-2)
        method.merge(model)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == list(vit.state_dict())


@pytest.mark.parametrize("inner", [nn.Linear(4, 3), nn.Linear(4, 3, bias=False), nn.LayerNorm(4)])
def test_spt_single_weights_replace_those_of_the_module(inner: nn.Linear | nn.LayerNorm) -> None:
    randomised(inner)
    index = torch.tensor([0, 2, 7] if isinstance(inner, nn.LayerNorm) else [1, 4, 11])
    chosen = ChosenEntries(inner.requires_grad_(False), index)
    x = random(2, 4)
    assert torch.equal(chosen(x), inner(x))
    with torch.no_grad():
        chosen.values.copy_(torch.tensor([1.5, -2.5, 0.5]))
    flat = np.concatenate([numbers(parameter).ravel() for parameter in inner.parameters()])
    flat[index.numpy()] = [1.5, -2.5, 0.5]
    if isinstance(inner, nn.LayerNorm):
        plain = nn.LayerNorm(4, elementwise_affine=False).double()
        assert_equal(chosen(x), numbers(plain(x)) * flat[:4] + flat[4:])
    else:
        assert_equal(chosen(x), numbers(x) @ flat[:12].reshape(3, 4).T + (flat[12:] if len(flat) > 12 else 0))
    torch.testing.assert_close(chosen.merged()(x), chosen(x))


def test_spt_adapter_reads_outputs_or_the_input_of_o() -> None:
    method, d = parse("spt_adapter(rank=2)"), 6
    weights = {"k": torch.empty(d, d)}
    fused, proj = nn.Linear(d, 3 * d).double(), nn.Linear(d, d).double()
    qkv = randomised(method.adapt_linear(fused, ("q", "k", "v"), {"k": method.module(weights["k"], 0.1)}))
    o = randomised(method.adapt_linear(proj, ("o",), {"o": method.module(torch.empty(d, d), 0.0)}))
    x = random(2, 3, d)

    def adapter(of: nn.Module, part: str, h: Array) -> Array:
        _, down, _, up, _ = of.get_submodule(f"adapters.{part}")
        return linear(gelu(linear(h, down)), up)

    plain = linear(numbers(x), fused)
    plain[..., d : 2 * d] += adapter(qkv, "k", plain[..., d : 2 * d])
    assert_equal(qkv(x), plain)
    assert_equal(o(x), linear(numbers(x), proj) + adapter(o, "o", numbers(x)))


def test_spt_counts_the_modules_of_the_release() -> None:
    """The numbers are those of engine.py:92-98 at rank 8."""
    assert parse("spt_lora").module_params(768, 3072) == 30_720
    assert parse("spt_adapter").module_params(768, 3072) == 52_232


def test_spt_refuses_impossible_budgets(vit: VisionTransformer) -> None:
    with raises_naming(ValueError, "budget=31", 32):
        tuned(vit, "spt_lora(budget=31)")
    with raises_naming(ValueError, "rank=17", 1088, 1024):
        tuned(vit, "spt_lora(rank=17)")
    assert_refused("spt_adapter(budget=0)", "budget", 0)
