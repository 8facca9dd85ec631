"""`apply`, `trainable` and `merge` on models of one's own."""

import copy
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import vtab_peft
from safetensors.torch import load_file, save_file
from timm.models.eva import Eva
from torch import nn
from vtab_peft.benchmark.method_checks.tiny_models import OTHER_VITS
from vtab_peft.methods import METHODS, default_specs
from vtab_peft.methods.base import Method

TINY = {"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32}
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 1])
RESTORED = 1e-5


def vit(classes: int = 3, **more: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=classes, **TINY, **more)


def swin() -> nn.Module:
    torch.manual_seed(0)
    small = {"patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4, "img_size": 32}
    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, drop_path_rate=0.0, **small)


def train(model: nn.Module, steps: int = 3) -> None:
    """The loop of docs/python.md, with every hook."""
    method, optimizer = model.peft_method, torch.optim.SGD(vtab_peft.trainable(model).values(), lr=0.1)
    model.train()
    for step in range(1, steps + 1):
        logits = model(torch.cat([IMAGES] * method.copies))
        loss = method.loss(model, logits, LABELS, nn.functional.cross_entropy)
        if (penalty := method.penalty(model)) is not None:
            loss = loss + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(model, step, steps)
    model.eval()


def test_an_eva_is_converted_first() -> None:
    with pytest.raises(ValueError, match="plain_vit"):
        vtab_peft.apply(OTHER_VITS["DINOv3"](), "lora")
    model = vtab_peft.plain_vit(OTHER_VITS["DINOv3"](num_classes=3).eval())
    before = model(IMAGES)
    vtab_peft.apply(model, "bitfit")
    train(model)
    trained = model(IMAGES)
    assert not torch.allclose(trained, before)
    vtab_peft.merge(model)
    torch.testing.assert_close(model(IMAGES), trained)


@pytest.mark.parametrize("name", [name for name in default_specs() if METHODS[name].needs is None])
def test_every_method_trains_and_merges_beside_a_classifier(name: str) -> None:
    model, cls = vit(), METHODS[name]
    before, examples = {n: p.clone() for n, p in model.state_dict().items()}, (IMAGES, LABELS)
    parameters = vtab_peft.apply(model, name, examples if cls.prepare is not Method.prepare else None)
    assert parameters == vtab_peft.trainable(model)
    assert {"head.weight", "head.bias"} <= parameters.keys()
    assert isinstance(model.peft_method, cls)
    counted = sum(p.numel() for n, p in parameters.items() if not n.startswith("head."))
    if cls.prepare is Method.prepare:
        assert counted == cls().expected_params(vit(0))
    train(model)
    assert not torch.equal(model.head.weight, before["head.weight"])
    with torch.no_grad():
        expected = model(IMAGES)
        if not cls.mergeable():
            with pytest.raises(TypeError):
                vtab_peft.merge(model)
            return
        vtab_peft.merge(model)
        assert (model(IMAGES) - expected).abs().max() <= RESTORED * expected.abs().max().clamp(min=1)
    plain = vit(qkv_bias=True)
    plain.load_state_dict(model.state_dict())  # the names of the plain model
    assert not hasattr(model, "peft_method")


@pytest.mark.parametrize("name", ["lora + bitfit", "apla", "hst", "pace"])
def test_an_adapter_is_saved_and_restored(name: str, tmp_path: Path) -> None:
    """apla draws indices at random, hst keeps running statistics, and pace wraps pretrained modules."""
    trained, restored = vit(), vit()
    for seed, model in enumerate((trained, restored)):
        torch.manual_seed(seed)
        vtab_peft.apply(model, name)
    train(trained)
    trained.get_classifier().requires_grad_(False)
    save_file(vtab_peft.adapter(trained), tmp_path / "adapter.safetensors")
    result = restored.load_state_dict(load_file(tmp_path / "adapter.safetensors"), strict=False)
    assert not result.unexpected_keys
    assert torch.equal(restored.eval()(IMAGES), trained(IMAGES))
    with pytest.raises(ValueError, match="apply"):
        vtab_peft.adapter(vit())


@pytest.mark.parametrize("name", OTHER_VITS)
@pytest.mark.parametrize("method", ["lora(sites='qkvo,fc1,fc2')", "ssf", "bitfit"])
def test_other_forms_of_vits_keep_their_classifier(name: str, method: str) -> None:
    torch.manual_seed(0)
    model = OTHER_VITS[name](num_classes=3)
    model = vtab_peft.plain_vit(model) if isinstance(model, Eva) else model
    names = vtab_peft.apply(model, method).keys()
    assert {"head.weight", "head.bias"} <= names
    train(model)
    with torch.no_grad():
        expected = model(IMAGES)
        vtab_peft.merge(model)
        assert (model(IMAGES) - expected).abs().max() <= RESTORED * expected.abs().max().clamp(min=1)


@pytest.mark.slow
def test_methods_of_peft_leave_the_classifier_alone() -> None:
    pytest.importorskip("peft")
    model = vit()
    names = set(vtab_peft.apply(model, "hf(type='loha')"))
    assert {name for name in names if name.startswith("head.")} == {"head.weight", "head.bias"}
    train(model)
    with torch.no_grad():
        expected = model(IMAGES)
        vtab_peft.merge(model)
        assert (model(IMAGES) - expected).abs().max() <= RESTORED * expected.abs().max().clamp(min=1)


def test_swins_classifier_is_kept() -> None:
    model = swin()
    assert {"head.fc.weight", "head.fc.bias"} == vtab_peft.apply(model, "linear").keys()
    train(model)
    assert model(IMAGES).shape == (4, 3)


def test_model_without_classifier_has_only_the_methods_parameters() -> None:
    parameters = vtab_peft.apply(vit(0), "lora(rank=2)")
    assert sum(p.numel() for p in parameters.values()) == 2 * 2 * 2 * 2 * 32
    assert all(p.requires_grad for p in parameters.values())


def test_initial_values_follow_torchs_seed() -> None:
    def initial(seed: int) -> torch.Tensor:
        model = vit()
        torch.manual_seed(seed)
        return next(iter(vtab_peft.apply(model, METHODS["lora"]()).values()))

    assert torch.equal(initial(1), initial(1))
    assert not torch.equal(initial(1), initial(2))


@pytest.mark.parametrize(
    ("model", "method", "named"),
    [
        (lambda: nn.Linear(2, 2), "lora", "Linear"),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224"), "lora", "VisionTransformerDistilled"),
        (swin, "vpt_deep", "vpt_deep"),
        (lambda: vit().half(), "lora", "float16"),
        (vit, "lora(rank=0)", "rank"),
        (vit, "nothing", "nothing"),
        (vit, "gps", "examples"),
    ],
)
def test_unusable_arguments_leave_the_model_unchanged(model: Callable[[], nn.Module], method: str, named: str) -> None:
    given = model()
    given.requires_grad_(False)
    with pytest.raises(ValueError, match=named):
        vtab_peft.apply(given, method)
    assert not vtab_peft.trainable(given)
    assert not hasattr(given, "peft_method")


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return vit()


@pytest.mark.parametrize(
    ("model", "method", "error"),
    [
        (on_meta, "lora", ValueError),
        (lambda: nn.DataParallel(vit()), "lora", ValueError),
        (vit, None, TypeError),
        (vit, ["lora"], TypeError),
        (vit, Method, TypeError),
    ],
)
def test_what_is_no_method_or_has_no_values_is_refused(
    model: Callable[[], nn.Module], method: Any, error: type[Exception]
) -> None:
    given = model()
    with pytest.raises(error):
        vtab_peft.apply(given, method)
    assert len(vtab_peft.trainable(given)) == len(list(given.parameters()))


def test_the_docstring_names_the_methods_that_need_examples() -> None:
    listed = re.findall(r"initialised from them \((.+)\)", vtab_peft.apply.__doc__ or "")
    assert sorted(listed[0].split(", ")) == sorted(n for n, c in METHODS.items() if c.prepare is not Method.prepare)


@pytest.mark.parametrize(
    "examples",
    [
        3,
        (IMAGES,),
        (IMAGES.numpy(), LABELS.tolist()),
        (IMAGES[:0], LABELS[:0]),
        (IMAGES.byte(), LABELS),
        (IMAGES.double(), LABELS),
        (IMAGES.to("meta"), LABELS.to("meta")),
        (IMAGES[..., :16], LABELS),
        (IMAGES, LABELS[:3]),
        (IMAGES, LABELS.float()),
        (IMAGES, LABELS + 1),
        (IMAGES, LABELS - 1),
    ],
)
def test_wrong_examples_leave_the_model_as_it_was(examples: Any) -> None:
    model = vit()
    with pytest.raises(ValueError, match="examples"):
        vtab_peft.apply(model, "gps", examples)
    vtab_peft.apply(model, "gps", (IMAGES, LABELS))


def test_a_combination_is_copied_and_pickled_with_its_model() -> None:
    model, file = vit(), io.BytesIO()
    vtab_peft.apply(model, "lora(rank=2) + bitfit")
    train(model)
    torch.save(copy.deepcopy(model), file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    expected = model(IMAGES)
    vtab_peft.merge(again)
    torch.testing.assert_close(again(IMAGES), expected, rtol=0, atol=RESTORED)


def test_methods_are_applied_and_merged_once() -> None:
    model = vit()
    with pytest.raises(ValueError, match="apply"):
        vtab_peft.merge(model)
    vtab_peft.apply(model, "lora")
    with pytest.raises(ValueError, match="lora"):
        vtab_peft.apply(model, "bitfit")
    vtab_peft.merge(model)
    vtab_peft.apply(model, "bitfit")


def test_a_model_returns_to_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: a parameter says that it is on one until `cpu()` moves it in place, as torch does."""
    places, moved = [torch.device("cuda", 1)], []

    class Elsewhere(nn.Parameter):
        device = property(lambda _: places[-1])  # pyright: ignore[reportAssignmentType]

    model: Any = vit()
    model.cls_token = Elsewhere(model.cls_token.detach())
    monkeypatch.setattr(model, "cpu", lambda: (places.append(torch.device("cpu")), model)[1])
    monkeypatch.setattr(model, "to", moved.append)
    vtab_peft.apply(model, "lora")
    assert moved == [places[0]]
