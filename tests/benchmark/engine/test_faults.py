"""What goes wrong inside a cell: losses that are no numbers, memory that is too short."""

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
from vtab_peft.benchmark.engine import backbone as backbones
from vtab_peft.benchmark.engine.errors import Diverged, OutOfMemory, divergence, free_memory, is_oom, one_line_message
from vtab_peft.benchmark.engine.evaluate import in_parts
from vtab_peft.benchmark.engine.fitting import backward
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.engine.live_model import LiveModel
from vtab_peft.benchmark.engine.numerics import ENGINES, Engine, Numerics
from vtab_peft.benchmark.engine.trainer import RunResult, run
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.execution.worker import RunSummary, Worker, answer
from vtab_peft.benchmark.plan import BackboneInfo, MethodInfo, SweepConfig, make_plan
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import MethodRef
from vtab_peft.datasets.cache import CachedTask
from vtab_peft.methods import METHODS, parse

QUIET = replace(RECIPES["smoke"], epochs=1, batch_size=8, drop_path=0.0)
CPU = torch.device("cpu")


Outcome = tuple[RunResult, np.ndarray]


@pytest.fixture
def cell(backbone: backbones.Backbone, data: CachedTask) -> Callable[..., Outcome]:
    """Runs a cell: 36 training images in batches of 8, 18 test images."""

    def cell(name: str, live: LiveModel, recipe: Any = QUIET, **options: Any) -> Outcome:
        method = parse(name)
        info = BackboneInfo(backbone.ref, None, backbone.mean, backbone.std, backbone.image_size, (), 1.0, "test")
        ref = MethodRef(name=name, args=method.args(), version=1, plugin=None, spec=name)
        described = MethodInfo(ref, method.title, method.lr, method.frozen_features, 0)
        (planned,) = make_plan(info, [described], [data], SweepConfig(recipe, [0]))
        return run(planned.spec, method, backbone, data, live, lambda *_: None, **options)

    return cell


class Small(LiveModel):
    """A device whose memory holds so many images in training, and so many in evaluation."""

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


# Memory


@pytest.mark.parametrize("name", ["lora", "adalora"])
def test_a_batch_in_parts_has_the_gradients_of_the_whole(name: str, backbone: backbones.Backbone) -> None:
    """In float64, so that rounding is no excuse; adalora has a penalty, which counts once."""
    torch.manual_seed(0)
    method = parse(name)
    vit = inject(backbone.vit, method, QUIET, 0).vit.double().train()
    with torch.no_grad():
        for parameter in (p for p in vit.parameters() if p.requires_grad):
            parameter.add_(torch.randn_like(parameter), alpha=0.1)  # off the start, where half of lora has no gradient
    images = torch.randn(11, 3, 64, 64, dtype=torch.float64)
    labels = torch.randint(5, (11,))
    head = torch.nn.Linear(vit.num_features, 5).double()

    def gradients(part: int) -> tuple[float, list[torch.Tensor]]:
        model = torch.nn.ModuleList([vit, head])
        model.zero_grad()
        penalty = lambda: method.penalty(vit)  # noqa: E731
        trained = [p for p in model.parameters() if p.requires_grad]
        loss = backward(trained, images, labels, lambda some: head(vit(some)), penalty, 0.1, part)
        return float(loss), [p.grad.clone() for p in trained if p.grad is not None]

    plain = F.cross_entropy(head(vit(images)), labels, label_smoothing=0.1)
    if (extra := method.penalty(vit)) is not None:
        plain = plain + extra
    expected = torch.autograd.grad(plain, [p for p in [*vit.parameters(), *head.parameters()] if p.requires_grad])
    for part in (11, 4, 1):
        loss, found = gradients(part)
        assert loss == pytest.approx(plain.item(), rel=1e-6)  # the sum of the loss is kept in float32
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("augmentation", [pytest.param("none", marks=pytest.mark.slow), "flip"])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(cell: Callable[..., Outcome], augmentation: str) -> None:
    recipe = replace(QUIET, augmentation=augmentation)
    whole, _ = cell("lora", LiveModel(CPU, Numerics()), recipe)
    live = Small(trains=3, evaluates=128)
    halved, _ = cell("lora", live, recipe)
    assert [n for training, n in live.passes if training][:3] == [8, 4, 2]
    np.testing.assert_allclose(halved.loss_curve, whole.loss_curve, rtol=1e-4)
    assert live.numerics.micro_batch == 2
    assert live.shortage == "trained 2 images at a time"
    assert halved.images_per_second > 0


def test_it_is_the_cell_that_the_smaller_part_gives_when_asked_for(cell: Callable[..., Outcome]) -> None:
    """Bit for bit, with dropout: the cell is begun again, and not gone on with."""
    recipe = replace(QUIET, drop_path=0.3)
    short, asked = Small(trains=4, evaluates=128), Small(trains=4, evaluates=128, micro_batch=4)
    ours, theirs = cell("lora", short, recipe), cell("lora", asked, recipe)
    assert ours[0].loss_curve == theirs[0].loss_curve
    assert np.array_equal(ours[1], theirs[1])
    assert short.numerics == asked.numerics
    assert asked.shortage == ""


def test_cells_of_the_kind_begin_with_what_fitted_and_others_with_all(cell: Callable[..., Outcome]) -> None:
    live = Small(trains=4, evaluates=128)
    for name, first in (("lora", 8), ("lora", 4), ("bitfit", 8)):
        live.passes.clear()
        cell(name, live)
        assert live.passes[0] == (True, first)


@pytest.mark.slow
def test_an_oracle_sees_each_epoch_once_however_often_the_cell_was_begun(cell: Callable[..., Outcome]) -> None:
    result, _ = cell("lora", Small(trains=2, evaluates=5), with_oracle=True)
    assert 1 <= (result.oracle_epoch or 0) <= QUIET.epochs


def test_a_compiled_model_is_compiled_anew_for_the_smaller_parts(
    cell: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the compiler makes is for `test_live.py`; here it is when, and for which shapes."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda vit, **_: compiled.append(vit) or vit)
    whole, answers = cell("lora", LiveModel(CPU, Numerics()))
    live = Small(trains=4, evaluates=16, engine="compiled")
    halved, found = cell("lora", live)
    assert {n for training, n in live.passes if training} == {8, 4}
    assert {n for training, n in live.passes if not training} == {32, 16}, "each shape is compiled for once"
    np.testing.assert_allclose(halved.loss_curve, whole.loss_curve, rtol=1e-4)
    assert np.array_equal(found, answers)
    assert len(compiled) == 2


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("engine", ENGINES)
def test_a_gpu_that_is_too_small_trains_in_parts(engine: Engine, data: CachedTask) -> None:
    """The allocator is held to 60 % of what the whole batch takes."""
    device, recipe = torch.device("cuda"), replace(QUIET, batch_size=32)
    large, method = backbones.load("vit_base_patch16_224.augreg_in21k", "random"), parse("lora")
    info = BackboneInfo(large.ref, None, large.mean, large.std, large.image_size, (), 1.0, "test")
    ref = MethodRef(name="lora", args=method.args(), version=1, plugin=None, spec="lora")
    described = MethodInfo(ref, method.title, method.lr, False, 0)
    (planned,) = make_plan(info, [described], [data], SweepConfig(recipe, [0]))

    def trained(live: LiveModel) -> RunResult:
        return run(planned.spec, method, large, data, live, lambda *_: None)[0]

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
def test_an_evaluation_that_does_not_fit_is_halved_and_goes_on(name: str, cell: Callable[..., Outcome]) -> None:
    whole, answers = cell(name, LiveModel(CPU, Numerics()))
    live = Small(trains=8, evaluates=5)
    halved, found = cell(name, live)
    assert np.array_equal(found, answers)
    np.testing.assert_allclose(halved.loss_curve, whole.loss_curve, rtol=1e-5)
    assert live.shortage == f"evaluated {live.numerics.eval_batch} at a time"


def test_what_does_not_fit_one_by_one_fails_with_advice(cell: Callable[..., Outcome]) -> None:
    with pytest.raises(
        OutOfMemory, match=r"^CUDA out of memory\. Tried to allocate 2\.00 GiB; even with one image .*--checkpointing"
    ):
        cell("lora", Small(trains=0, evaluates=128))
    with pytest.raises(OutOfMemory, match="even with one image"):
        cell("lora", Small(trains=8, evaluates=0))


def test_other_errors_are_not_taken_for_a_lack_of_memory(cell: Callable[..., Outcome]) -> None:
    class Broken(Small):
        def features(self, images: torch.Tensor) -> torch.Tensor:
            self.passes.append((True, len(images)))
            raise RuntimeError("shapes differ")

    live = Broken(8, 8)
    with pytest.raises(RuntimeError, match="shapes differ"):
        cell("lora", live)
    assert len(live.passes) == 1


def test_the_allocator_of_the_cpu_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_oom(caught.value)
    with pytest.raises(MemoryError) as caught:
        np.empty(2**48)
    assert is_oom(caught.value)
    wrapped = RuntimeError("backend compiler failed")
    wrapped.__cause__ = torch.OutOfMemoryError("no room")
    assert is_oom(wrapped)
    assert not is_oom(ValueError("out of memory"))
    assert one_line_message(RuntimeError("one\ntwo")) == "one"
    assert one_line_message(MemoryError()) == "MemoryError"


def test_parts_cover_everything_once_in_order() -> None:
    live = Small(0, 0, eval_batch=128)

    def work(part: slice) -> torch.Tensor:
        if part.stop - part.start > 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.arange(part.start, part.stop)

    assert torch.equal(torch.cat(list(in_parts(work, 300, live))), torch.arange(300))
    assert live.numerics.eval_batch == 32


# Numbers


def test_a_loss_that_is_no_number_is_told_with_epoch_step_and_what_came_before(cell: Callable[..., Outcome]) -> None:
    with pytest.raises(
        Diverged, match=r"became (nan|inf) in epoch 1 of 1, step \d of 4, after \d.* rate of 1e\+30; .* smaller"
    ):
        cell("bitfit", LiveModel(CPU, Numerics()), replace(QUIET, optimizer="sgd", lr=1e30, warmup_epochs=0))


def test_the_first_step_that_is_no_number_is_named() -> None:
    told = str(divergence([2.0, 3.5, 80.0, float("inf"), float("nan")], 4, 10, 0.01))
    assert told.startswith("the training loss became inf in epoch 5 of 10, step 4 of 5, after 2, 3.5, 80, at a peak")
    assert "became nan in epoch 1 of 2, step 1 of 1, at" in str(divergence([float("nan")], 0, 2, 0.01))


def test_outputs_that_are_no_numbers_are_no_accuracy(
    cell: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step may break what the last loss could not show yet."""

    class Late(type(parse("bitfit"))):
        def after_step(self, vit: Any, step: int, steps: int) -> None:
            if step == steps:
                with torch.no_grad():
                    vit.norm.bias.fill_(float("nan"))

    monkeypatch.setitem(METHODS, "late", Late)
    with pytest.raises(Diverged, match="for 18 of 18 images is not a number"):
        cell("late", LiveModel(CPU, Numerics()))


# What becomes of it


class Full(Worker):
    """A worker whose cell fails in a folder that cannot be written."""

    def run(self, cell: Any, connection: Any) -> Any:
        raise Diverged("the training loss became nan")


def test_a_failure_that_cannot_be_recorded_ends_the_sweep_in_words(fake: Any) -> None:
    worker = Full(Path("/proc/results"), Numerics(1), [], [])
    cell: Any = SimpleNamespace(spec=fake.spec())
    word, said = answer(worker, cell, None)  # type: ignore[arg-type]
    assert word == "unwritable"
    assert "the training loss became nan" in said
    assert "cannot write /proc/results/failed" in said


def test_a_shortage_is_shown_beside_the_result(fake: Any) -> None:
    out = io.StringIO()
    cell: Any = SimpleNamespace(spec=fake.spec(), seconds=1.0)
    summary = RunSummary(Path("x.json"), 0.5, 1.0, 100.0, None, "trained 8 images at a time")
    Progress([cell], out).finished(cell, summary)
    assert "100 images/s, trained 8 images at a time for lack of memory" in out.getvalue()
