"""One live model serves many runs: its reset is exact, and compiled code is shared."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from vtab_peft.benchmark.engine import backbone as backbones
from vtab_peft.benchmark.engine.injection import Injected, inject
from vtab_peft.benchmark.engine.live_model import LiveModel
from vtab_peft.benchmark.engine.numerics import ENGINES, Engine, Numerics
from vtab_peft.benchmark.engine.trainer import RunResult, train_and_evaluate
from vtab_peft.benchmark.plan import BackboneInfo, MethodInfo, SweepConfig, make_plan
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import MethodRef, Recipe, RunSpec
from vtab_peft.datasets.cache import CachedTask
from vtab_peft.methods import parse

QUIET = replace(RECIPES["smoke"], epochs=2, batch_size=8, drop_path=0.0)
CPU = torch.device("cpu")


def spec_of(
    name: str, backbone: backbones.Backbone, data: CachedTask, seed: int = 0, recipe: Recipe = QUIET
) -> RunSpec:
    method = parse(name)
    info = BackboneInfo(backbone.ref, None, backbone.mean, backbone.std, backbone.image_size, (), 1.0, "test")
    ref = MethodRef(name=name.partition("(")[0], args=method.args(), version=1, plugin=None, spec=name)
    described = MethodInfo(ref, method.title, method.lr, method.frozen_features, 0)
    (planned,) = make_plan(info, [described], [data], SweepConfig(recipe, [seed]))
    return planned.spec


def result_of(
    name: str, backbone: backbones.Backbone, data: CachedTask, live: LiveModel, seed: int = 0, recipe: Recipe = QUIET
) -> RunResult:
    spec = spec_of(name, backbone, data, seed, recipe)
    return train_and_evaluate(spec, parse(name), backbone, data, live)[0]


def test_a_model_of_the_same_kind_keeps_its_tensors(backbone: backbones.Backbone, data: CachedTask) -> None:
    live = LiveModel(CPU, Numerics(engine="compiled"))

    def load(name: str, seed: int = 0, spec: str = "") -> tuple[Injected, bool]:
        fresh = inject(backbone.vit, parse(name), QUIET, seed)
        expected.clear()
        expected.update({name: value.clone() for name, value in fresh.vit.state_dict().items()})
        return live.load(fresh, spec_of(spec or name, backbone, data), backbone.image_size)

    expected: dict[str, torch.Tensor] = {}
    first, is_new = load("lora")
    assert is_new
    with torch.no_grad():
        for parameter in first.vit.parameters():
            parameter.add_(1.0)
    second, is_new = load("lora", seed=1)
    assert not is_new
    assert second.vit is first.vit is live.vit
    assert all(torch.equal(value, expected[name]) for name, value in second.vit.state_dict().items())
    assert load("lora(alpha=80.0)")[1], "same tensors, other mathematics"
    assert load("lora(rank=2)", spec="lora(alpha=80.0)")[1], "other shapes"


def test_an_eager_model_is_replaced(backbone: backbones.Backbone, data: CachedTask) -> None:
    """So that no attribute of a module, such as a counter of steps, passes from run to run."""
    live = LiveModel(CPU, Numerics())
    loaded = [
        live.load(inject(backbone.vit, parse("lora"), QUIET, 0), spec_of("lora", backbone, data), backbone.image_size)
        for _ in range(2)
    ]
    assert [is_new for _, is_new in loaded] == [True, True]
    assert live.vit is loaded[1][0].vit is not loaded[0][0].vit


def test_evaluation_batches_have_one_shape(
    backbone: backbones.Backbone, data: CachedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of 18 test images would otherwise be alone, and torch rounds differently for one image than for 17."""
    shapes, features = set(), LiveModel.features

    def record(live: LiveModel, images: torch.Tensor) -> torch.Tensor:
        if not live.vit.training:
            shapes.add(images.shape)
        return features(live, images)

    monkeypatch.setattr(LiveModel, "features", record)
    result_of("lora", backbone, data, LiveModel(CPU, Numerics(eval_batch=17)))
    assert shapes == {(17, 3, 40, 48)}


def test_warming_up_leaves_running_statistics(backbone: backbones.Backbone, data: CachedTask) -> None:
    live = LiveModel(CPU, Numerics())
    live.load(inject(backbone.vit, parse("hst"), QUIET, 0), spec_of("hst", backbone, data), backbone.image_size)
    before = {name: buffer.clone() for name, buffer in live.vit.named_buffers()}
    live.warm_up_training((4, 3, 40, 48))
    assert all(torch.equal(buffer, before[name]) for name, buffer in live.vit.named_buffers())
    live.vit.train()
    live.features(torch.from_numpy(np.array(data.images("test")[:4])))
    assert not torch.equal(live.vit.get_buffer("fc_norm.running_mean"), before["fc_norm.running_mean"])


@pytest.mark.parametrize("name", ["lora", "full", "vpt_deep", "convpass", "hst"])
def test_checkpointing_gives_the_same_numbers(name: str, backbone: backbones.Backbone, data: CachedTask) -> None:
    recipe = replace(QUIET, drop_path=0.1)  # the second forward pass must draw the same again
    plain = result_of(name, backbone, data, LiveModel(CPU, Numerics()), recipe=recipe)
    again = result_of(name, backbone, data, LiveModel(CPU, Numerics(checkpointing=True)), recipe=recipe)
    assert again.loss_curve == plain.loss_curve
    assert again.accuracy == plain.accuracy


def agrees(numerics: Numerics, device: torch.device, backbone: backbones.Backbone, data: CachedTask) -> None:
    """Check agreement within rounding, and that runs of one kind are compiled once."""
    eager, fast = LiveModel(device, Numerics()), LiveModel(device, numerics)
    for seed in (0, 1):
        plain, quick = (result_of("aoft_lora", backbone, data, live, seed) for live in (eager, fast))
        np.testing.assert_allclose(quick.loss_curve, plain.loss_curve, rtol=1e-4)
        assert (quick.compile_seconds > 0) == (seed == 0)
        assert plain.compile_seconds == 0


@pytest.mark.slow
def test_a_compiled_model_agrees_with_the_eager_one(backbone: backbones.Backbone, data: CachedTask) -> None:
    agrees(Numerics(engine="compiled"), CPU, backbone, data)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("micro_batch", [None, 4])
@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "eager"])
def test_each_engine_agrees_on_the_gpu(
    engine: Engine, micro_batch: int | None, backbone: backbones.Backbone, data: CachedTask
) -> None:
    agrees(Numerics(engine=engine, micro_batch=micro_batch), torch.device("cuda"), backbone, data)
