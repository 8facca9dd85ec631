"""Messages of `run` before and after it works: time, engine, workers and tracebacks."""

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest
from vtab_peft.benchmark.commands.messages import announcement, estimate_of, one_worker, say_outcome
from vtab_peft.benchmark.engine.numerics import Engine
from vtab_peft.benchmark.execution.scheduler import SweepResult
from vtab_peft.benchmark.plan import BackboneInfo
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import BackboneRef
from vtab_peft.benchmark.storage.store import Store


@pytest.mark.parametrize(
    ("on_gpu", "engine", "runs", "advised"),
    [(True, "eager", 7, True), (True, "eager", 5, False), (True, "graphs", 7, False), (False, "eager", 7, False)],
)
def test_long_sweep_is_advised_to_compile(on_gpu: bool, engine: Engine, runs: int, advised: bool) -> None:
    """Each run takes 100 seconds."""
    backbone = BackboneInfo(
        BackboneRef(name="toy_vit", sha256="5e" * 32), None, (0, 0, 0), (1, 1, 1), 64, (), 1.0, "it", on_gpu
    )
    missing: list[Any] = [SimpleNamespace(seconds=100.0)] * runs
    said = announcement(missing, missing, backbone, RECIPES["uniform"], engine)
    assert said.startswith(f"{runs} runs")
    assert ("--engine compiled_graphs is faster" in said) is advised


@pytest.mark.parametrize(
    ("on_gpu", "engine", "said"), [(True, "compiled", 0), (False, "compiled", 1), (False, "eager", 0)]
)
def test_an_engine_that_compiles_says_so_on_a_cpu(on_gpu: bool, engine: Engine, said: int) -> None:
    backbone = BackboneInfo(
        BackboneRef(name="toy_vit", sha256="5e" * 32), None, (0, 0, 0), (1, 1, 1), 64, (), 1.0, "it", on_gpu
    )
    runs: list[Any] = [SimpleNamespace(seconds=1.0)]
    assert announcement(runs, runs, backbone, RECIPES["uniform"], engine).count("CPU") == said


@pytest.mark.parametrize(
    ("asked", "alone"),
    [({}, True), ({"workers": 4}, False), ({"workers_per_gpu": 1}, False), ({"executor": "ray"}, False)],
)
def test_estimate_for_several_workers_is_marked(asked: dict[str, Any], alone: bool) -> None:
    """The speed-up of several workers is unknown, because they may share one GPU."""
    assert one_worker(Namespace(**{"workers": 1, "executor": "local", "workers_per_gpu": None} | asked)) is alone
    runs: list[Any] = [SimpleNamespace(seconds=60.0)] * 2
    assert estimate_of(runs, alone).startswith("2 min")
    assert ("worker" in estimate_of(runs, alone)) is not alone
    assert estimate_of([], alone) == "0 s"


@pytest.mark.parametrize(("traceback", "pointed_to"), [("", False), ("Traceback ...", True)])
def test_path_of_a_traceback_is_printed(
    traceback: str, pointed_to: bool, store: Store, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker that was killed leaves none."""
    run: Any = SimpleNamespace(spec=fake.spec())
    path = store.save_failure(run.spec, "the worker was killed by signal 9", traceback)
    say_outcome(SweepResult(failed=[(run, "the worker was killed by signal 9")]), store)
    assert (str(path) in capsys.readouterr().err) is pointed_to
