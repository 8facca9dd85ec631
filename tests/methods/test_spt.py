"""Compare SPT with its paper and its release, written again in numpy."""

from itertools import chain

import numpy as np
import pytest
import torch
from golden_blocks import one_block_vit
from in_numpy import Array, assert_equal, gelu, linear, numbers, random, randomised
from raises import raises_naming
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.benchmark.engine.injection import Injected, inject
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.methods import parse
from vtab_peft.methods.initial_values import trunc_normal_
from vtab_peft.methods.sensitivity import Piece, choose, squared_gradients
from vtab_peft.methods.spt import AdaptedLinear, ChosenEntries
from vtab_peft.methods.updates import UpdatedLinear

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
    trunc_normal_(head.weight, generator=torch.Generator().manual_seed(0))
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
