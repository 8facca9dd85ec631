"""Runs that diverge or run out of memory."""

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from raises import raises_naming
from vtab_peft.benchmark.engine import backbone as backbones
from vtab_peft.benchmark.engine.errors import (
    Diverged,
    LossTermError,
    OutOfMemory,
    free_memory,
)
from vtab_peft.benchmark.engine.evaluate import map_batches
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.engine.live_model import LiveModel
from vtab_peft.benchmark.engine.numerics import ENGINES, Engine, Numerics
from vtab_peft.benchmark.engine.random_streams import Stream, derive_seed
from vtab_peft.benchmark.engine.trainer import RunResult, make_head, train, train_and_evaluate
from vtab_peft.benchmark.engine.transforms import resize
from vtab_peft.benchmark.execution.messages import RunFinished
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.plan import BackboneInfo, MethodInfo, SweepConfig, make_plan
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import MethodRef, Recipe, RunSpec
from vtab_peft.datasets.cache import CachedTask
from vtab_peft.methods import METHODS, parse

QUIET = replace(RECIPES["smoke"], epochs=1, batch_size=8, drop_path=0.0)
CPU = torch.device("cpu")


Outcome = tuple[RunResult, np.ndarray]


def planned_run(name: str, backbone: backbones.Backbone, data: CachedTask, recipe: Recipe) -> RunSpec:
    method = parse(name)
    info = BackboneInfo(backbone.ref, None, backbone.mean, backbone.std, backbone.image_size, (), 1.0, "test")
    ref = MethodRef(name=name, args=method.args(), version=1, plugin=None, spec=name)
    described = MethodInfo(ref, method.title, method.lr, method.frozen_features, 0)
    (planned,) = make_plan(info, [described], [data], SweepConfig(recipe, [0]))
    return planned.spec


@pytest.fixture
def outcome(backbone: backbones.Backbone, data: CachedTask) -> Callable[..., Outcome]:
    """Return a function that trains on 36 images in batches of 8 and evaluates on 18."""

    def outcome(name: str, live: LiveModel, recipe: Recipe = QUIET, **options: Any) -> Outcome:
        spec = planned_run(name, backbone, data, recipe)
        return train_and_evaluate(spec, parse(name), backbone, data, live, **options)

    return outcome


class Small(LiveModel):
    """A device with memory for a limited number of images in training and in evaluation."""

    def __init__(self, trains: int, evaluates: int, **numerics: Any) -> None:
        super().__init__(CPU, Numerics(**numerics))
        self.limits = {True: trains, False: evaluates}
        self.passes: list[tuple[bool, int]] = []

    def features(self, images: torch.Tensor) -> torch.Tensor:
        training = torch.is_grad_enabled()
        self.passes.append((training, len(images)))
        if len(images) > self.limits[training]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of ...")
        return super().features(images)


# Loss terms


def test_a_penalty_without_effect_stops_the_run(outcome: Callable[..., Outcome], monkeypatch) -> None:
    class Constant(METHODS["lora"]):
        def penalty(self, vit: Any) -> Any:
            return 0.01

    monkeypatch.setitem(METHODS, "lora", Constant)
    with raises_naming(LossTermError, "`Constant.penalty`", "test_faults.py", "float"):
        outcome("lora", Small(36, 18))


# Memory


class Float64(LiveModel):
    """Computes features in float64, so that rounding hides nothing."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.vit(resize(images, 64, "bicubic").double() / 255)


@pytest.mark.parametrize("name", ["lora", "adalora"])
def test_micro_batches_sum_to_the_gradient_of_the_batch(
    name: str, backbone: backbones.Backbone, data: CachedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of SGD at rate 1 subtracts the gradient; adalora has a penalty, which counts once."""

    class Moved(type(parse(name))):
        """Moved off its initial values, where half of lora has no gradient."""

        def inject(self, vit: Any) -> None:
            super().inject(vit)
            with torch.no_grad():
                for parameter in (p for p in vit.parameters() if p.requires_grad):
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)

        def after_step(self, vit: Any, step: int, steps: int) -> None:
            """Change nothing."""

    monkeypatch.setitem(METHODS, name, Moved)
    recipe = replace(QUIET, batch_size=36, optimizer="sgd", lr=1.0, min_lr=1.0, momentum=0.0, weight_decay=0.0)
    recipe = replace(recipe, warmup_epochs=0, clip_norm=None, label_smoothing=0.1, precision="fp32")
    method, exact = parse(name), replace(backbone, vit=copy.deepcopy(backbone.vit).double())
    planned = replace(planned_run(name, backbone, data, recipe), recipe=recipe)
    torch.set_default_dtype(torch.float64)
    try:
        trained = {
            size: train(planned, method, exact, data, Float64(CPU, Numerics(micro_batch=size))) for size in (36, 10, 1)
        }
        start = inject(exact.vit, method, recipe, derive_seed(0, Stream.INITIAL_VALUES)).vit.train()
        head = make_head(start.num_features, data.classes, recipe, derive_seed(0, Stream.HEAD))
    finally:
        torch.set_default_dtype(torch.float32)
    images = torch.from_numpy(np.concatenate([data.images("train"), data.images("val")]))
    labels = torch.from_numpy(np.concatenate([data.labels("train"), data.labels("val")]))
    loss = F.cross_entropy(head(start(resize(images, 64, "bicubic").double() / 255)), labels, label_smoothing=0.1)
    if (penalty := method.penalty(start)) is not None:
        loss = loss + penalty
    before = [p for p in [*start.parameters(), *head.parameters()] if p.requires_grad]
    gradients = torch.autograd.grad(loss, before)
    for found in trained.values():
        assert found.loss_curve[0] == pytest.approx(loss.item(), rel=1e-6)  # the sum of the loss is kept in float32
        after = [p for p in [*found.injected.vit.parameters(), *found.head.parameters()] if p.requires_grad]
        assert len(after) == len(before)
        for old, new, gradient in zip(before, after, gradients, strict=True):
            torch.testing.assert_close(old - new, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("augmentation", [pytest.param("none", marks=pytest.mark.slow), "flip"])
def test_batches_are_halved_until_they_fit(outcome: Callable[..., Outcome], augmentation: str) -> None:
    recipe = replace(QUIET, augmentation=augmentation)
    whole, _ = outcome("lora", LiveModel(CPU, Numerics()), recipe)
    live = Small(trains=3, evaluates=128)
    halved, _ = outcome("lora", live, recipe)
    assert [n for training, n in live.passes if training][:3] == [8, 4, 2]
    np.testing.assert_allclose(halved.loss_curve, whole.loss_curve, rtol=1e-4)
    assert live.numerics.micro_batch == 2
    assert live.oom_summary == "trained 2 images at a time"
    assert halved.images_per_second > 0


def test_batches_of_methods_that_compare_images_stay_whole(outcome: Callable[..., Outcome]) -> None:
    whole = {"da_vpt", "da_vpt_plus", "dyt", "hst", "pace"}
    assert {name for name, cls in METHODS.items() if cls.needs_whole_batch} == whole
    assert parse("lora + hst").needs_whole_batch
    with pytest.raises(OutOfMemory):
        outcome("hst", Small(trains=3, evaluates=128))
    with raises_naming(ValueError, "hst", "--micro-batch"):
        outcome("hst", LiveModel(CPU, Numerics(micro_batch=4)))
    outcome("hst", LiveModel(CPU, Numerics(micro_batch=8)))  # the whole batch


def test_halving_equals_the_option_micro_batch(outcome: Callable[..., Outcome]) -> None:
    """Compare bit for bit, with dropout: the run starts again."""
    recipe = replace(QUIET, drop_path=0.3)
    short, asked = Small(trains=4, evaluates=128), Small(trains=4, evaluates=128, micro_batch=4)
    ours, theirs = outcome("lora", short, recipe), outcome("lora", asked, recipe)
    assert ours[0].loss_curve == theirs[0].loss_curve
    assert np.array_equal(ours[1], theirs[1])
    assert short.numerics == asked.numerics
    assert asked.oom_summary == ""


@pytest.mark.slow
def test_only_runs_of_the_same_kind_keep_the_micro_batch(outcome: Callable[..., Outcome]) -> None:
    live = Small(trains=4, evaluates=128)
    for name, first in (("lora", 8), ("lora", 4), ("bitfit", 8)):
        live.passes.clear()
        outcome(name, live)
        assert live.passes[0] == (True, first)


@pytest.mark.slow
def test_a_restarted_run_evaluates_each_epoch_once(outcome: Callable[..., Outcome]) -> None:
    result, _ = outcome("lora", Small(trains=2, evaluates=5), evaluate_each_epoch=True)
    assert 1 <= (result.oracle_epoch or 0) <= QUIET.epochs


@pytest.mark.slow
def test_smaller_batches_are_compiled_anew(outcome: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check when the model is compiled and for which shapes; `test_live.py` checks the numbers."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda vit, **_: compiled.append(vit) or vit)
    whole, answers = outcome("lora", LiveModel(CPU, Numerics()))
    live = Small(trains=4, evaluates=16, engine="compiled")
    halved, found = outcome("lora", live)
    assert {n for training, n in live.passes if training} == {8, 4}
    assert {n for training, n in live.passes if not training} == {32, 16}, "each shape is compiled for once"
    np.testing.assert_allclose(halved.loss_curve, whole.loss_curve, rtol=1e-4)
    assert np.array_equal(found, answers)
    assert len(compiled) == 2


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("engine", ENGINES)
def test_a_small_gpu_trains_in_micro_batches(engine: Engine, data: CachedTask) -> None:
    """Limit the allocator to 60 % of the memory of the whole batch."""
    device, recipe = torch.device("cuda"), replace(QUIET, batch_size=32)
    large = backbones.load("vit_base_patch16_224.augreg_in21k", "random")
    spec = planned_run("lora", large, data, recipe)

    def trained(live: LiveModel) -> RunResult:
        return train_and_evaluate(spec, parse("lora"), large, data, live)[0]

    whole = trained(LiveModel(device, Numerics(engine=engine)))
    torch.compiler.reset()
    free_memory(device)
    total = torch.cuda.get_device_properties(device).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction(0.6 * whole.peak_bytes / total)
        live = LiveModel(device, Numerics(engine=engine))
        halved = trained(live)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert live.numerics.micro_batch in (16, 8, 4)
    assert halved.peak_bytes < whole.peak_bytes
    np.testing.assert_allclose(halved.loss_curve, whole.loss_curve, rtol=1e-3)


@pytest.mark.parametrize("name", ["lora", pytest.param("linear", marks=pytest.mark.slow)])
def test_evaluation_batches_are_halved_until_they_fit(name: str, outcome: Callable[..., Outcome]) -> None:
    whole, answers = outcome(name, LiveModel(CPU, Numerics()))
    live = Small(trains=8, evaluates=5)
    halved, found = outcome(name, live)
    assert np.array_equal(found, answers)
    np.testing.assert_allclose(halved.loss_curve, whole.loss_curve, rtol=1e-5)
    assert live.oom_summary == f"evaluated {live.numerics.eval_batch} at a time"


@pytest.mark.slow
def test_a_single_image_that_does_not_fit_is_an_error(outcome: Callable[..., Outcome]) -> None:
    with pytest.raises(OutOfMemory, match=r"^CUDA out of memory\. Tried to allocate 2\.00 GiB;.*--checkpointing"):
        outcome("lora", Small(trains=0, evaluates=128))
    with pytest.raises(OutOfMemory):
        outcome("lora", Small(trains=8, evaluates=0))


def test_other_errors_are_not_retried(outcome: Callable[..., Outcome]) -> None:
    class Broken(Small):
        def features(self, images: torch.Tensor) -> torch.Tensor:
            self.passes.append((True, len(images)))
            raise RuntimeError("shapes differ")

    live = Broken(8, 8)
    with pytest.raises(RuntimeError, match="shapes differ"):
        outcome("lora", live)
    assert len(live.passes) == 1


def test_map_batches_covers_every_image_once_in_order() -> None:
    live = Small(0, 0, eval_batch=128)

    def work(part: slice) -> torch.Tensor:
        if part.stop - part.start > 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.arange(part.start, part.stop)

    assert torch.equal(torch.cat(list(map_batches(work, 300, live))), torch.arange(300))
    assert live.numerics.eval_batch == 32


# Numbers


def test_divergence_names_epoch_step_and_rate(outcome: Callable[..., Outcome]) -> None:
    with pytest.raises(Diverged, match=r"(nan|inf) in epoch 1 of 1, step \d of 4, after \d.*1e\+30"):
        outcome("bitfit", LiveModel(CPU, Numerics()), replace(QUIET, optimizer="sgd", lr=1e30, warmup_epochs=0))


def test_nan_logits_are_an_error(outcome: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the model after the last step, when the loss cannot show it."""

    class Late(type(parse("bitfit"))):
        def after_step(self, vit: Any, step: int, steps: int) -> None:
            if step == steps:
                with torch.no_grad():
                    vit.norm.bias.fill_(float("nan"))

    monkeypatch.setitem(METHODS, "late", Late)
    with pytest.raises(Diverged, match="18 of 18 images"):
        outcome("late", LiveModel(CPU, Numerics()))


# Consequences


def test_a_shortage_is_shown_beside_the_result(fake: Any) -> None:
    out = io.StringIO()
    run: Any = SimpleNamespace(spec=fake.spec(), seconds=1.0)
    summary = RunFinished(Path("x.json"), 0.5, 1.0, 100.0, None, "trained 8 images at a time")
    Progress([run], out).finished(run, summary)
    assert "100 images/s, trained 8 images at a time for lack of memory" in out.getvalue()
