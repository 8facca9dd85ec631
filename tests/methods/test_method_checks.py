"""The checks of `method_checks`, on every registered method."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints
from zlib import crc32

import pytest
import torch
from raises import raises_naming
from vtab_peft.benchmark.commands.check_method import run_check
from vtab_peft.benchmark.engine.injection import inject, wants_examples
from vtab_peft.benchmark.method_checks import checks, class_checks
from vtab_peft.benchmark.method_checks.checks import CHECKS, SLOW_CHECKS, Check
from vtab_peft.benchmark.method_checks.tiny_models import (
    BACKBONES,
    NO_DROP_PATH,
    OTHER_VITS,
    Case,
    backbones_for,
    inject_copy,
    sample_images,
    tiny,
    train_few_steps,
)
from vtab_peft.methods import METHODS, Method, parse

NAMES = sorted(METHODS)

UNTRAINED: dict[str, frozenset[str]] = {
    # Of two blocks only the last one receives, and its class token passes no convolution.
    "dtl_plus": frozenset({"blocks.0.fusion.module.weight"}),
}
"""Trainable tensors that correctly get no gradient on a backbone of two blocks."""

ATTENDING = ("cvpt", "e2vpt", "gate_vpt", "sa2vp", "synqt", "vqt")
NO_CLASS_TOKEN = ("no qkv bias", "attention pooling")
NO_QKV_BIAS = ("no qkv bias", "DINOv3")
GATED = ("gated MLP", "EVA-02", "EVA")

REFUSED = {
    **{(name, backbone): (name, "class token") for name in ("da_vpt", "da_vpt_plus") for backbone in NO_CLASS_TOKEN},
    **{(name, backbone): ("attention",) for name in ("vqt", "synqt") for backbone in ("attention pooling", "PE")},
    **{("glora", backbone): ("glora", "c, d and e", "'none'") for backbone in NO_QKV_BIAS},
    **{("rlrr", backbone): ("rlrr", "bias") for backbone in NO_QKV_BIAS},
    **{(name, "differential attention"): (name, "DiffAttention") for name in ATTENDING},
    **{(name, backbone): (name, "RotaryAttention") for name in ATTENDING for backbone in ("DINOv3", "EVA-02")},
    **{(name, "PE"): (name, "RotaryAttention") for name in ("cvpt", "e2vpt", "gate_vpt", "sa2vp")},
    **{(name, backbone): (name, "SwiGLU") for name in ("cara", "fact_tk", "fact_tt") for backbone in GATED},
}
"""Refused (method, backbone) -> facts that the error names."""

RARE = ("no qkv bias", "differential attention", "gated MLP", "norms inside", "DINOv3", "EVA-02", "EVA", "PE")
"""Backbones that only the slow tests try."""

SAMPLE = [("lora", "DINOv3"), ("ssf", "DINOv3"), ("lora_fused", "EVA-02"), ("vpt_deep", "EVA-02"), ("cvpt", "PE")]
"""Methods and rare backbones of the fast tests."""

RELATED_CHECKS = (
    checks.check_gradients_reach_all,
    checks.check_parameter_count,
    checks.check_merge_equivalence,
)
"""Checks whose result may depend on registers, pooling and norms of other ViTs."""


PEFT_SAMPLE = ("adalora", "hf", "ia3", "oft", "vera")
"""Methods that share the bridge to peft, of each kind; the fast tests put the others into the plain ViT only."""


def pairs(backbones: Iterable[str]) -> list:
    """Return every method with every backbone; the fast tests try the plain ViT, and one other for half of them."""
    found, common = [], [backbone for backbone in backbones if backbone not in ("plain", *RARE)]
    for name in NAMES:
        half, other = divmod(crc32(name.encode()), len(common))
        is_repeated = METHODS[name].needs == "peft" and name not in PEFT_SAMPLE
        fast = ["plain"] if is_repeated or half % 2 else ["plain", common[other]]
        for backbone in backbones:
            marks = () if backbone in fast or (name, backbone) in SAMPLE else pytest.mark.slow
            found.append(pytest.param(name, backbone, id=f"{name}-{backbone}", marks=marks))
    return found


def ready(name: str) -> Method:
    """Return the method at its defaults; skip the test if a package that it needs is not installed."""
    if package := METHODS[name].needs:
        pytest.importorskip(package)
    return parse(name)


def assert_passes(name: str, backbone: str, checks: Iterable[Check]) -> None:
    """Run the checks on one shared case, and name each that fails."""
    case = Case(ready(name), backbone, UNTRAINED.get(name, frozenset()))
    failures = {check.__name__: failure for check in checks if (failure := run_check(check, case, Path(__file__)))}
    assert not failures, failures


@pytest.mark.parametrize(("name", "backbone"), pairs(BACKBONES))
def test_method_passes_the_checks(name: str, backbone: str) -> None:
    if backbone not in backbones_for(METHODS[name]):
        with raises_naming(ValueError, "ViT", "Swin", "lora"):
            inject_copy(tiny(backbone), ready(name))
        return
    assert_passes(name, backbone, [check for check in CHECKS if check not in SLOW_CHECKS])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_method_passes_the_slow_checks(name: str) -> None:
    assert_passes(name, "LayerScale", SLOW_CHECKS)


@pytest.mark.parametrize("name", NAMES)
def test_methods_of_the_suite_have_all_facts(name: str) -> None:
    assert not class_checks.missing_facts(METHODS[name])


def test_methods_whose_default_is_not_the_released_form_say_so() -> None:
    for name, cls in METHODS.items():
        options = {hint for hint in get_type_hints(cls).values() if "released" in get_args(hint)}
        chosen = {getattr(cls, field.name) for field in fields(cls) if get_type_hints(cls)[field.name] in options}
        if options and "released" not in chosen and cls.paper is not None and cls.paper.code:
            assert cls.differs, f"{name} has a released form, which is not its default"


@pytest.mark.parametrize(("name", "backbone"), pairs(OTHER_VITS))
def test_method_passes_checks_on_other_vits(name: str, backbone: str) -> None:
    if facts := REFUSED.get((name, backbone)):
        with raises_naming(ValueError, *facts):
            inject_copy(tiny(backbone), ready(name))
        return
    assert_passes(name, backbone, RELATED_CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "aoft_lora", "adaptformer", "vpt_deep"])
def test_inductor_computes_the_same(name: str) -> None:
    checks.check_compiles(Case(ready(name), "LayerScale"), backend="inductor")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "dora", "aoft_adapter", "adapter_parallel", "ssf", "hra"])
def test_each_way_into_a_swin_compiles(name: str) -> None:
    checks.check_compiles(Case(ready(name), "Swin"))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_computes_what_the_cpu_does(name: str, precision: torch.dtype) -> None:
    """Injection, preparation, features and gradients, all on the device."""
    method, images = ready(name), sample_images()
    examples = (sample_images(seed=9).cuda(), torch.tensor([0, 1, 0, 1]).cuda()) if wants_examples(method) else None
    vit = inject(tiny("LayerScale"), method, NO_DROP_PATH, 0, examples).vit.eval()
    with torch.no_grad():
        expected = vit.cpu()(images)
    with torch.autocast("cuda", torch.bfloat16, enabled=precision is torch.bfloat16):
        features = vit.cuda()(images.cuda()).float()
    away = float((features.detach().cpu() - expected).norm() / expected.norm())
    assert away < (0.05 if precision is torch.bfloat16 else 1e-3)
    if features.requires_grad:
        features.square().sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in vit.parameters())


@pytest.mark.parametrize("backbone", ["plain", "LayerScale"])
@pytest.mark.parametrize("name", UNTRAINED)
def test_tensors_without_gradient_have_one_in_a_deeper_model(name: str, backbone: str) -> None:
    _, moved = train_few_steps(tiny(backbone), ready(name))
    _, moved_in_four_blocks = train_few_steps(tiny(backbone, depth=4), ready(name))
    assert UNTRAINED[name] <= moved_in_four_blocks - moved


@pytest.mark.parametrize("name", [name for name in NAMES if not METHODS[name].mergeable()])
def test_methods_without_merge_raise_type_error(name: str) -> None:
    method, vit = ready(name), inject_copy(tiny("plain"), ready(name)).vit
    with raises_naming(TypeError, name):
        method.merge(vit)


@pytest.mark.parametrize("name", NAMES)
def test_inject_leaves_the_callers_random_stream(name: str) -> None:
    vit = tiny("plain")
    torch.manual_seed(3)
    expected_next = torch.rand(1)
    torch.manual_seed(3)
    inject_copy(vit, ready(name))
    assert torch.equal(torch.rand(1), expected_next)
