"""Runs are deterministic, follow the protocol, and call the hooks of methods."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from raises import raises_naming
from vtab_peft.benchmark.engine import backbone as backbones
from vtab_peft.benchmark.engine.device import precision_notes
from vtab_peft.benchmark.engine.errors import Diverged
from vtab_peft.benchmark.engine.live_model import LiveModel
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.engine.optim import learning_rate, make_optimizer, split_batches
from vtab_peft.benchmark.engine.random_streams import Stream, derive_seed
from vtab_peft.benchmark.engine.trainer import RunResult, make_head, train, train_and_evaluate
from vtab_peft.benchmark.plan import BackboneInfo, MethodInfo, SweepConfig, make_plan
from vtab_peft.benchmark.recipes import RECIPES, UNIFORM
from vtab_peft.benchmark.spec import MethodRef, Recipe, RunSpec
from vtab_peft.datasets.cache import CachedTask, build
from vtab_peft.datasets.folder import folder_task
from vtab_peft.methods import METHODS, Method, parse

SHORT = replace(RECIPES["smoke"], epochs=2, probe_epochs=3, batch_size=8)


def info_of(backbone: backbones.Backbone) -> BackboneInfo:
    return BackboneInfo(
        backbone.ref, "random", backbone.mean, backbone.std, backbone.image_size, (), 1.0, device="test"
    )


def spec_of(
    method: Method, backbone: backbones.Backbone, data: CachedTask, recipe: Recipe = SHORT, **choice
) -> RunSpec:
    ref = MethodRef(
        name=method.spec().partition("(")[0], args=method.args(), version=1, plugin=None, spec=method.spec()
    )
    described = MethodInfo(ref, method.title, method.lr, method.frozen_features, 0)
    (planned,) = make_plan(info_of(backbone), [described], [data], SweepConfig(recipe, **{"seeds": [0], **choice}))
    return planned.spec


def on_cpu(**numerics: Any) -> LiveModel:
    return LiveModel(torch.device("cpu"), Numerics(**numerics))


def outcome(
    name: str, backbone: backbones.Backbone, data: CachedTask, live: LiveModel | None = None, **options: Any
) -> tuple[RunResult, np.ndarray]:
    method = parse(name)
    spec = spec_of(method, backbone, data, **options)
    return train_and_evaluate(spec, method, backbone, data, live or on_cpu())


def diverge(name: str, backbone: backbones.Backbone, data: CachedTask, live: LiveModel) -> None:
    """Train with a learning rate at which every head diverges."""
    method = parse(name)
    spec = spec_of(method, backbone, data, seeds=[4])
    spec = replace(spec, recipe=replace(spec.recipe, lr=1e38))
    train_and_evaluate(spec, method, backbone, data, live)


SAMPLE = ("aoft_lora", "dyt", "linear", "vpt_deep")
"""Methods of each kind that the fast tests run twice; the slow tests run all of them."""
SLOW = pytest.mark.slow
ON_DIVERGENCE = {"vblora": (RuntimeError, "infinity")}
"""Methods whose own check comes before that of the trainer: the error, and what it names."""


def same(a: tuple[RunResult, np.ndarray], b: tuple[RunResult, np.ndarray]) -> bool:
    return a[0].loss_curve == b[0].loss_curve and np.array_equal(a[1], b[1])


@pytest.mark.parametrize(
    "name", [name if name in SAMPLE else pytest.param(name, marks=SLOW) for name in sorted(METHODS)]
)
def test_a_run_does_not_depend_on_earlier_runs(name: str, backbone: backbones.Backbone, data: CachedTask) -> None:
    alone, live = outcome(name, backbone, data), on_cpu()
    outcome("full", backbone, data, live, seeds=[3])
    outcome(name, backbone, data, live, seeds=[3])  # leaves its values in the live model
    error, fact = ON_DIVERGENCE.get(name, (Diverged, "epoch 1 of"))
    with raises_naming(error, fact):
        diverge(name, backbone, data, live)  # leaves the values of an unfinished run
    torch.rand(17)
    assert same(alone, outcome(name, backbone, data, live))


def test_another_seed_is_another_run(backbone: backbones.Backbone, data: CachedTask) -> None:
    assert not same(outcome("lora", backbone, data), outcome("lora", backbone, data, seeds=[1]))


def test_bf16_trains_too(backbone: backbones.Backbone, data: CachedTask) -> None:
    exact = outcome("lora", backbone, data)[0].loss_curve
    rounded = outcome("lora", backbone, data, recipe=replace(SHORT, precision="bf16"))[0].loss_curve
    assert rounded != exact
    np.testing.assert_allclose(rounded, exact, rtol=0.05)


def test_clipping_cuts_each_entry_of_a_gradient(backbone: backbones.Backbone, data: CachedTask) -> None:
    """One step of SGD at rate 1 moves no entry further than `clip_value`."""
    recipe = replace(SHORT, epochs=1, batch_size=64, drop_last=False, optimizer="sgd", lr=1.0, min_lr=1.0, momentum=0.0)
    recipe = replace(recipe, weight_decay=0.0, warmup_epochs=0, clip_value=1e-3)
    method = parse("bitfit")
    spec = spec_of(method, backbone, data, recipe=recipe)
    head = train(spec, method, backbone, data, on_cpu()).head
    start = make_head(head.in_features, data.classes, recipe, derive_seed(0, Stream.HEAD))
    moved = (head.weight - start.weight).detach().abs()
    assert moved.max() == pytest.approx(1e-3, rel=1e-3)
    assert moved.min() < 1e-3


def test_training_learns_a_learnable_task(backbone: backbones.Backbone, data: CachedTask) -> None:
    result, predictions = outcome("full", backbone, data, recipe=replace(SHORT, epochs=20))
    assert result.accuracy > 0.8
    assert result.loss_curve[-1] < result.loss_curve[0] / 2
    assert result.accuracy == np.mean(predictions == data.labels("test"))
    assert result.per_class_accuracy == [
        np.mean(predictions[data.labels("test") == c] == c) for c in range(data.classes)
    ]


class Spy:
    """A cached task that records which splits are opened, and when."""

    def __init__(self, data: CachedTask, events: list[str]) -> None:
        self.wrapped, self.events = data, events

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def images(self, split: str) -> np.ndarray:
        self.events.append(split)
        return self.wrapped.images(split)

    def labels(self, split: str) -> np.ndarray:
        self.events.append(split)
        return self.wrapped.labels(split)


@pytest.mark.parametrize("name", ["linear", "lora"])
@pytest.mark.parametrize("split", ["test", "val"])
def test_evaluation_data_is_opened_once_after_the_last_epoch(
    name: str, split: str, backbone: backbones.Backbone, data: CachedTask
) -> None:
    events: list[str] = []
    method = parse(name)
    spec = spec_of(method, backbone, data, split=split)

    def progress(phase: str, done: int, of: int, *_: object) -> None:
        events.append(f"{phase} {done}/{of}")

    train_and_evaluate(spec, method, backbone, Spy(data, events), on_cpu(), progress)  # type: ignore[arg-type]
    epochs = spec.recipe.epochs
    last = events.index(f"train {epochs}/{epochs}")
    before = {event for event in events[:last] if not event.startswith("train ")}
    assert before == ({"train", "val"} if split == "test" else {"train"})
    assert events[last + 1 : last + 3] == [split, split]
    assert ("test" in events) == (split == "test")


def test_diverging_loss_ends_the_run_and_names_the_epoch(backbone: backbones.Backbone, data: CachedTask) -> None:
    with raises_naming(Diverged, "epoch 1 of 2"):
        outcome("bitfit", backbone, data, recipe=replace(SHORT, optimizer="sgd", lr=1e30))


def test_penalty_prepare_and_after_step_are_called(backbone: backbones.Backbone, data: CachedTask) -> None:
    calls: list[Any] = []

    class Hooked(type(parse("bitfit"))):
        def prepare(self, vit, images, labels):
            calls.append((tuple(images.shape), len(labels)))

        def penalty(self, vit):
            return 100 + 0 * vit.norm.bias.sum()

        def after_step(self, vit, step, steps):
            calls.append((step, steps))

    spec = spec_of(parse("bitfit"), backbone, data)
    result, _ = train_and_evaluate(spec, Hooked(), backbone, data, on_cpu())
    assert calls == [((36, 3, 64, 64), 36), *((step, 8) for step in range(1, 9))]
    assert result.loss_curve[0] > 100


def test_linear_probe_uses_its_own_number_of_epochs(backbone: backbones.Backbone, data: CachedTask) -> None:
    assert len(outcome("linear", backbone, data)[0].loss_curve) == SHORT.probe_epochs
    augmented = replace(SHORT, augmentation="flip")
    assert len(outcome("linear", backbone, data, recipe=augmented)[0].loss_curve) == SHORT.epochs


@pytest.mark.slow
def test_training_sees_random_crops_and_evaluation_the_centre(
    backbone: backbones.Backbone, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    """Replace the pixels outside the centre: only training with random crops changes."""
    recipe = replace(SHORT, framing="square_crop", augmentation="crop_flip")
    preprocessing = SweepConfig(recipe, seeds=[0]).preprocessing(info_of(backbone))
    data = build(folder_task(make_task()), preprocessing, tmp_path / "cache")

    class Spoilt(Spy):
        def images(self, split: str) -> np.ndarray:
            images = np.array(self.wrapped.images(split))
            assert images.shape[-2:] == (73, 73)
            centre = images[..., 4:68, 4:68].copy()
            images[:] = 255
            images[..., 4:68, 4:68] = centre
            return images

    def curve(data: Any, recipe: Recipe) -> list[float]:
        result, _ = outcome("lora", backbone, data, recipe=recipe)
        return [*result.loss_curve, result.accuracy]

    spoilt: Any = Spoilt(data, [])
    fixed = replace(recipe, augmentation="none")
    assert curve(spoilt, fixed) == curve(data, fixed)
    assert curve(spoilt, recipe) != curve(data, recipe)
    assert curve(data, recipe) == curve(data, recipe)


def test_random_crops_need_a_cropping_resize_mode() -> None:
    with raises_naming(ValueError, "crop_flip"):
        replace(SHORT, augmentation="crop_flip")


def test_schedule_is_warm_up_cosine_and_cool_down() -> None:
    recipe = replace(UNIFORM, warmup_lr=1e-5, min_lr=1e-6, cooldown_epochs=10)
    assert learning_rate(recipe, 0) == 1e-5
    assert learning_rate(recipe, 10) == recipe.lr
    assert learning_rate(recipe, 55) == pytest.approx((recipe.lr + recipe.min_lr) / 2)
    for epoch in (100, 105):
        assert learning_rate(recipe, epoch) == pytest.approx(recipe.min_lr)
    expected = 1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi * 22.5 / 90)) / 2
    assert learning_rate(recipe, 32.5) == pytest.approx(expected)


def test_only_drop_last_drops_a_smaller_last_batch() -> None:
    order = torch.arange(20)
    kept = replace(UNIFORM, batch_size=8, drop_last=False)
    assert [len(b) for b in split_batches(order, kept)] == [8, 8, 4]
    assert [len(b) for b in split_batches(order, replace(kept, drop_last=True))] == [8, 8]
    assert [len(b) for b in split_batches(order[:5], replace(kept, drop_last=True))] == [5]


def test_factors_of_the_learning_rate_make_groups() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    first, second = (cast(torch.nn.Linear, layer) for layer in model)
    recipe = replace(UNIFORM, decayed="matrices", weight_decay=0.1)
    groups = make_optimizer(model, recipe, {second.weight: 4.0, second.bias: 4.0}).param_groups
    found = [(group["lr_factor"], group["weight_decay"], [id(p) for p in group["params"]]) for group in groups]
    assert found == [
        *((1.0, 0.1, [id(first.weight)]), (1.0, 0.0, [id(first.bias)])),
        *((4.0, 0.1, [id(second.weight)]), (4.0, 0.0, [id(second.bias)])),
    ]


def test_weight_decay_can_exclude_vectors() -> None:
    model = torch.nn.Linear(3, 2)
    groups = make_optimizer(model, replace(UNIFORM, decayed="matrices", weight_decay=0.1)).param_groups
    assert {(tuple(p.shape), group["weight_decay"]) for group in groups for p in group["params"]} == {
        ((2, 3), 0.1),
        ((2,), 0.0),
    }
    groups = make_optimizer(model, replace(UNIFORM, decayed="all", weight_decay=0.1)).param_groups
    assert {group["weight_decay"] for group in groups} == {0.1}


@pytest.mark.parametrize("name", ["linear", "lora", pytest.param("adapter_plus", marks=SLOW)])
def test_evaluating_each_epoch_does_not_change_training(
    name: str, backbone: backbones.Backbone, data: CachedTask
) -> None:
    constant = replace(SHORT, warmup_epochs=0, min_lr=SHORT.lr, drop_path=0.3)  # so a short run is a long one's start
    stopped = [
        outcome(name, backbone, data, recipe=replace(constant, epochs=n, probe_epochs=n))[0].accuracy
        for n in (1, 2, 3, 4)
    ]
    method, recipe = parse(name), replace(constant, epochs=4, probe_epochs=4)
    spec = spec_of(method, backbone, data, recipe=recipe)
    plain = train_and_evaluate(spec, method, backbone, data, on_cpu())
    watched = train_and_evaluate(spec, method, backbone, data, on_cpu(), evaluate_each_epoch=True)
    assert same(plain, watched)
    assert plain[0].accuracy == watched[0].accuracy == stopped[-1]
    assert (watched[0].oracle_accuracy, watched[0].oracle_epoch) == (max(stopped), 1 + stopped.index(max(stopped)))
    assert (plain[0].oracle_accuracy, plain[0].oracle_epoch) == (None, None)


@pytest.mark.parametrize(
    ("device", "precision", "instructions", "is_slow"),
    [
        ("cpu", "bf16", "AVX2", True),
        ("cpu", "bf16", "AVX512", False),
        ("cpu", "fp32", "AVX2", False),
        ("cuda", "bf16", "AVX2", False),
    ],
)
def test_emulated_bf16_is_told(
    device: str, precision: str, instructions: str, is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    assert bool(precision_notes(torch.device(device), precision, "use fp32")) == is_slow
