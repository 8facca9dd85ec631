"""Test the bridge to peft, and compare our LoRA family with peft's."""

import copy
import subprocess
import sys
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from golden_blocks import images, one_block_vit
from raises import raises_naming
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.benchmark.commands import method_docs, method_rows
from vtab_peft.benchmark.engine.optim import make_optimizer
from vtab_peft.benchmark.method_checks import checks
from vtab_peft.benchmark.method_checks.tiny_models import Case
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.methods import METHODS, parse
from vtab_peft.methods.dora import Decomposed
from vtab_peft.methods.hf_peft import HF, Rows, SplitQKV, tuned_layers
from vtab_peft.methods.lora import LowRank

SLOW = pytest.mark.slow
NAMED = sorted(name for name, method in METHODS.items() if method.needs == "peft" and name != "hf")


def test_fourierft_rate_acts_like_a_learning_rate() -> None:
    """The authors use a learning rate of 0.2 for the coefficients and 1e-3 for the head."""
    plain, learned = one_block_vit(), []
    cotangent = torch.randn(2, 48, generator=torch.Generator().manual_seed(2))
    for rate, lr in ((200.0, 1e-3), (1.0, 0.2)):
        vit = copy.deepcopy(plain)
        parse(f"fourierft(coefficients=60, scale=768.0, rate={rate})").inject(vit)
        optimizer = torch.optim.AdamW([p for p in vit.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
        for _ in range(5):
            optimizer.zero_grad()
            (vit(images()) * cotangent).sum().backward()
            optimizer.step()
        learned.append(vit(images()).detach())
    assert (learned[0] - plain(images())).abs().max() > 0.01
    torch.testing.assert_close(*learned, rtol=1e-3, atol=1e-4)


def test_fourierft_scale_is_relative_to_the_width() -> None:
    """For weights with entries of equal size, |dW| / |W| = |dW| / d; at width 768 it is the authors' value."""
    shares = []
    for width in (128, 256, 768):
        vit = VisionTransformer(img_size=32, patch_size=16, embed_dim=width, depth=1, num_heads=2, num_classes=0)
        parse("fourierft(coefficients=200, scale=300.0, rate=1.0)").inject(vit)
        layer = tuned_layers(vit)["blocks.0.attn.qkv.q"]
        nn.init.ones_(layer.fourierft_spectrum["default"])
        shares.append(layer.get_delta_weight("default").detach().norm().item() / width)
    assert shares == pytest.approx([300.0 * (200 / 2) ** 0.5 / 768**2] * 3, rel=0.03)  # half is in the real part


def test_reflections_start_in_equal_pairs() -> None:
    vit = one_block_vit()
    parse("hra(rank=4)").inject(vit)
    u = cast(Any, vit.get_submodule("blocks.0.attn.qkv.q")).hra_u["default"]
    assert torch.equal(u[:, ::2], u[:, 1::2])


def test_orthonormalised_reflections_start_finite() -> None:
    vit = one_block_vit()
    parse("hra(gram_schmidt=True)").inject(vit)
    assert vit(images()).isfinite().all()


def test_random_matrices_of_randlora_are_float32() -> None:
    vit = one_block_vit()
    parse("randlora").inject(vit)
    assert {tensor.dtype for tensor in vit.buffers()} == {torch.float32}


PAIRS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
}
"""Our method -> the options of peft's LoRA that make it the same."""


@pytest.mark.parametrize("name", PAIRS)
def test_our_lora_family_equals_that_of_peft(name: str) -> None:
    ours = one_block_vit()
    theirs = copy.deepcopy(ours)
    parse(f"{name}(rank=4, alpha=8.0)").inject(ours)
    HF(type="lora", options={"r": 4, "lora_alpha": 8, **PAIRS[name]}).inject(theirs)
    ours, theirs = ours.double(), theirs.double()
    generator = torch.Generator().manual_seed(2)
    pairs: list[tuple[Tensor, Tensor]] = []
    for site in "qv":
        layer = cast(Any, theirs.get_submodule(f"blocks.0.attn.qkv.{site}"))
        wrapped = cast(Any, ours.get_submodule("blocks.0.attn.qkv"))
        put_in = (wrapped.transforms if name == "dora" else wrapped.updates)[site]
        factors = put_in.direction if isinstance(put_in, Decomposed) else put_in
        pairs += [(factors.a, layer.lora_A["default"].weight), (factors.b, layer.lora_B["default"].weight)]
        if isinstance(put_in, Decomposed):
            pairs.append((put_in.magnitude, layer.lora_magnitude_vector["default"].weight))
    with torch.no_grad():
        for mine, yours in pairs:
            mine += 0.1 * torch.randn(mine.shape, generator=generator, dtype=mine.dtype)
            yours.copy_(mine)
    x = images().double()
    cotangent = torch.randn(2, 48, generator=generator, dtype=x.dtype)
    close = {"rtol": 0, "atol": 1e-5 if name == "pissa" else 1e-10}  # peft decomposes in float32
    torch.testing.assert_close(ours(x), theirs(x), **close)
    (ours(x) * cotangent).sum().backward()
    (theirs(x) * cotangent).sum().backward()
    for mine, yours in pairs:
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, cast(Tensor, yours.grad), **close)


def test_lora_plus_steps_like_that_of_peft() -> None:
    from peft.optimizers import create_loraplus_optimizer

    ours = one_block_vit()
    theirs = copy.deepcopy(ours)
    method, recipe = parse("lora_plus(rank=4, ratio=5.0)"), replace(RECIPES["smoke"], lr=1e-2, weight_decay=0.0)
    method.inject(ours)
    HF(type="lora", options={"r": 4}).inject(theirs)
    with torch.no_grad():
        for site, update in cast(Any, ours.get_submodule("blocks.0.attn.qkv")).updates.items():
            layer = cast(Any, theirs.get_submodule(f"blocks.0.attn.qkv.{site}"))
            layer.lora_A["default"].weight.copy_(update.a)
            layer.lora_B["default"].weight.copy_(update.b.normal_(generator=torch.Generator().manual_seed(3)))
    by_us = make_optimizer(ours, recipe, method.lr_factors(ours))
    for group in by_us.param_groups:
        group["lr"] = recipe.lr * group["lr_factor"]
    by_peft = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=recipe.lr, loraplus_lr_ratio=5.0)
    for vit, optimizer in ((ours, by_us), (theirs, by_peft)):
        vit(images()).square().sum().backward()
        optimizer.step()
    update = cast(Any, ours.get_submodule("blocks.0.attn.qkv")).updates["v"]
    layer = cast(Any, theirs.get_submodule("blocks.0.attn.qkv.v"))
    torch.testing.assert_close(update.a, layer.lora_A["default"].weight)
    torch.testing.assert_close(update.b, layer.lora_B["default"].weight)


def test_our_pissa_starts_like_that_of_peft() -> None:
    ours = one_block_vit()
    theirs = copy.deepcopy(ours)
    parse("pissa(rank=4, alpha=8.0)").inject(ours)
    HF(type="lora", options={"r": 4, "lora_alpha": 8, "init_lora_weights": "pissa"}).inject(theirs)
    update = cast(LowRank, cast(Any, ours.get_submodule("blocks.0.attn.qkv")).updates["q"])
    layer = cast(Any, theirs.get_submodule("blocks.0.attn.qkv.q"))
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(update.b @ update.a, product, rtol=0, atol=1e-5)


def test_split_qkv_uses_the_pretrained_tensors() -> None:
    vit = one_block_vit()
    before = {id(tensor) for tensor in vit.parameters()}
    expected = vit(images())
    parse("vera").inject(vit)
    split = cast(SplitQKV, vit.get_submodule("blocks.0.attn.qkv"))
    assert before <= {id(tensor) for tensor in vit.parameters()}
    assert sum(isinstance(module, Rows) for module in vit.modules()) == 3
    assert torch.equal(vit(images()), expected)
    with torch.no_grad():
        split.fused.weight.zero_()
        split.fused.bias.zero_()
    assert torch.equal(split(torch.randn(1, 2, 48)), torch.zeros(1, 2, 3 * 48))


def test_a_copy_of_the_model_is_independent() -> None:
    vit = one_block_vit()
    parse("oft(block=8)").inject(vit)
    other = copy.deepcopy(vit)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1
        assert not torch.equal(vit(images()), other(images()))
        untouched = one_block_vit()
        untouched.load_state_dict(plain(vit).state_dict())
        assert torch.equal(untouched(images()), vit(images()))


def test_copies_project_the_gradients_of_osf() -> None:
    """peft's OSF projects gradients in hooks on parameters, which `deepcopy` and pickle leave out."""
    vit = one_block_vit()
    parse("hf(type='osf')").inject(vit)
    gradients = []
    for model in (vit, copy.deepcopy(vit), copy.deepcopy(vit)):
        model(images()).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for first, *others in zip(*gradients, strict=True):
        assert all(torch.equal(first, other) for other in others)
    layer = tuned_layers(vit)["blocks.0.attn.qkv.q"]  # square: what is left lies in the span of the initial U
    basis = layer._osf_U_low_init["default"]
    u = layer.osf_svd_params["default"]["U_low"].grad
    torch.testing.assert_close(basis @ (basis.T @ u), u)


def plain(vit: VisionTransformer) -> VisionTransformer:
    merged = copy.deepcopy(vit)
    parse("oft(block=8)").merge(merged)
    return merged


OTHERS: dict[str, dict[str, Any]] = {"beft": {}, "glora": {}, "lily": {}, "ln_tuning": {}, "osf": {}}
"""Tuners that are not registered methods, with options for a model this small."""


@pytest.mark.parametrize("tuner", OTHERS)
def test_any_tuner_of_peft_can_be_injected(tuner: str) -> None:
    case = checks.Case(HF(type=tuner, options=OTHERS[tuner]))
    checks.check_output_shape(case)
    checks.check_gradients_reach_all(case)
    checks.check_frozen_unchanged(case)
    checks.check_adapter_roundtrip(case)
    if tuner == "lily":
        with raises_naming(TypeError, "hf(type='lily'"):
            checks.check_merge_equivalence(case)
    else:
        checks.check_merge_equivalence(case)


@pytest.mark.parametrize("sites", ["qv", "fc1,fc2"])
def test_deft_counts_no_more_directions_than_outputs(sites: str) -> None:
    pytest.importorskip("peft")
    checks.check_parameter_count(Case(parse(f"deft(rank=33, sites={sites!r})")))


@pytest.mark.parametrize("sites", [pytest.param("k", marks=SLOW), pytest.param("o", marks=SLOW), "qkvo,fc1,fc2"])
@pytest.mark.parametrize("method", [name for name in NAMED if name != "ia3"])
def test_every_site_is_counted_and_merges(method: str, sites: str) -> None:
    case = checks.Case(parse(f"{method}(sites={sites!r})"))
    checks.check_parameter_count(case)
    checks.check_merge_equivalence(case)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("vera(sites='qx')", ("sites='qx'",)),
        ("vera(rank=0)", ("rank", "0")),
        ("oft(block=0)", ("block", "0")),
        ("fourierft(coefficients=0)", ("coefficients", "0")),
        ("hra(rank=3)", ("rank", "3")),
        ("adalora(target_rank=12)", ("target_rank=12", "rank=12")),
        ("adalora(hold=0.5, settle=0.5)", ("hold=0.5", "settle=0.5")),
        ("hf(type='adalora')", ("adalora",)),
        ("hf(type='ln_tuning', sites='k')", ("ln_tuning", "sites='k'")),
        ("hf(options={'init_lora_weights': 'eva'})", ("init_lora_weights", "'eva'")),
        ("hf(options={'init_lora_weights': 'lora_ga'})", ("init_lora_weights", "'lora_ga'")),
        ("hf(options={'init_lora_weights': 'corda'})", ("init_lora_weights", "'corda'")),
        ("hf(options={'kasa_config': {}})", ("kasa_config",)),
    ],
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("oft(block=5)", ("block=5", "48")),
        ("boft(block=5)", ("boft_block_size",)),
        ("hf(type='nora')", ("'nora'", "adalora")),
        ("hf(options={'rank': 8})", ("lora", "{'rank': 8}")),
        ("hf(options={'bias': 'all'})", ("bias", "query, key or value")),
        ("hf(type='boft', options={'boft_n_butterfly_factor': 2})", ("butterfly", "one")),
        ("hf(type='prefix_tuning')", ("prefix_tuning",)),
        ("hf(type='trainable_tokens')", ("trainable_tokens",)),
        ("hf(type='poly')", ("poly",)),
        ("hf(options={'layers_to_transform': [0]})", ("layers_to_transform", "[0]")),
        ("hf(options={'inference_mode': True})", ("lora", "inference_mode")),
    ],
)
def test_impossible_peft_configurations_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    with raises_naming(ValueError, *facts):
        parse(spec).inject(one_block_vit())


@pytest.mark.slow
def test_importing_the_methods_does_not_import_peft() -> None:
    code = "import sys, vtab_peft.methods; assert 'peft' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("method", [*NAMED, "hf"])
def test_missing_peft_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with raises_naming(ValueError, 'pip install "vtab-peft[peft]"'):
        parse(method).inject(one_block_vit(64))


def test_methods_are_listed_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    with_peft = method_rows.methods()
    monkeypatch.setitem(sys.modules, "peft", None)
    rows = method_rows.methods()
    assert rows == with_peft
    listed = {line.split()[0]: line for line in method_docs.table(rows).splitlines() if line}
    assert all("needs peft" in listed[name] for name in [*NAMED, "hf"])
    assert "needs peft" not in listed["lora"]
