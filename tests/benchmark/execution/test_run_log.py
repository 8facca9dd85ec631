"""`--log`: each epoch is logged, no bit of a result changes, and a broken log fails no run."""

import csv
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from asking import command
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine.epoch import EpochFacts
from vtab_peft.benchmark.execution.run_log import LOGS, RunLog
from vtab_peft.benchmark.plan import PlannedRun

TIMES = ("train_seconds", "eval_seconds", "compile_seconds", "images_per_second", "peak_bytes")


@pytest.fixture
def sweep(make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that runs LoRA with more options, and returns the record and the results folder."""
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    task = make_task()

    def sweep(name: str, *more: str) -> tuple[dict[str, Any], Path]:
        ask = [*command(task, tmp_path / name), "--methods", "lora(rank=1)", "--seeds", "0", "--set", "batch_size=8"]
        assert main([*ask, *more]) == 0
        (path,) = (tmp_path / name / "runs").rglob("*.json")
        return json.loads(path.read_text()), tmp_path / name

    return sweep


def rows(results: Path) -> list[dict[str, str]]:
    (path,) = (results / "logs").glob("*.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_log_changes_no_bit_of_the_result(sweep: Callable[..., Any]) -> None:
    plain, results = sweep("plain", "--split", "val")
    logged, beside = sweep("logged", "--split", "val", "--log", "csv")
    assert not (results / "logs").exists()
    assert logged["key"] == plain["key"]
    assert logged["predictions_sha256"] == plain["predictions_sha256"]
    for record in (plain, logged):
        for name in TIMES:
            del record["result"][name]
    assert logged["result"] == plain["result"]
    found = rows(beside)
    assert [float(row["loss"]) for row in found] == plain["result"]["loss_curve"]
    assert float(found[-1]["accuracy"]) == plain["result"]["accuracy"]
    assert all(0 <= float(row["lr"]) <= plain["spec"]["recipe"]["lr"] for row in found)
    assert [row["epoch"] for row in found] == ["1", "2"]


def test_test_images_are_not_evaluated_for_a_log(sweep: Callable[..., Any]) -> None:
    record, results = sweep("results", "--log", "csv")
    assert record["result"]["oracle_accuracy"] is None
    assert "accuracy" not in rows(results)[0]


def test_a_broken_log_fails_no_run(sweep: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "logs").write_text("in the way")
    assert sweep("results", "--log", "csv")[0]["result"]["loss_curve"]


def test_missing_packages_are_refused_before_anything_runs(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vtab_peft.benchmark.execution.run_log.find_spec", lambda name: None)
    ask = [*command(make_task(), tmp_path / "results"), "--methods", "lora"]
    assert main([*ask, "--log", "csv,wandb"]) == 2
    assert "vtab-peft[wandb]" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*ask, "--log", "mlflow"])


@pytest.mark.parametrize("kind", [kind for kind in LOGS if kind != "csv"])
def test_trackers_get_every_epoch(
    kind: Any, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run: Any = PlannedRun(fake.spec(), *[None] * 3, 1.0)  # type: ignore[arg-type]
    with RunLog([kind], tmp_path, run) as log:
        for epoch in (1, 2):
            log.write(epoch, EpochFacts(0.5 / epoch, 1e-3, 100, 2.0, 0.25))
        assert log.kinds == [kind]
    assert "given up" not in capsys.readouterr().err
    assert [path for path in (tmp_path / "logs" / kind).rglob("*") if path.is_file()]


def steps_of_csv(folder: Path) -> list[int]:
    return [int(row["epoch"]) for row in rows(folder)]


def steps_of_tensorboard(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (folder / "logs" / "tensorboard").iterdir()
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    return [event.step for event in accumulator.Scalars("loss")]


@pytest.mark.parametrize(("kind", "steps_of"), [("csv", steps_of_csv), ("tensorboard", steps_of_tensorboard)])
def test_a_training_that_begins_again_replaces_its_log(
    kind: Any, steps_of: Callable[[Path], list[int]], fake: Any, tmp_path: Path
) -> None:
    """A training begins again with smaller batches when memory runs out after an epoch."""
    if kind != "csv" and find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed")
    run: Any = PlannedRun(fake.spec(), *[None] * 3, 1.0)  # type: ignore[arg-type]
    for epochs in ((1, 2, 1), (1,)):  # the run is also repeated
        with RunLog([kind], tmp_path, run) as log:
            for epoch in epochs:
                log.write(epoch, EpochFacts(0.5, 1e-3, 100, 2.0))
        assert log.kinds == [kind]
        assert steps_of(tmp_path) == [1]


def test_a_second_try_has_a_run_of_its_own_in_wandb(fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases takes no smaller step than it has."""
    if find_spec("wandb") is None:
        pytest.skip("wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run: Any = PlannedRun(fake.spec(), *[None] * 3, 1.0)  # type: ignore[arg-type]
    with RunLog(["wandb"], tmp_path, run) as log:
        for epoch in (1, 2, 1):
            log.write(epoch, EpochFacts(0.5, 1e-3, 100, 2.0))
    assert len(list((tmp_path / "logs" / "wandb").rglob("*.wandb"))) == 2
