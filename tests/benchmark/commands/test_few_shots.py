"""`run --shots` and `tune --shots` from end to end: identity, what is opened, the table and its figure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import command
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.cache import CachedTask

QUICK = ("--set", "epochs=1", "probe_epochs=1")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)


def test_draws_are_runs_with_one_table(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, results = make_task(), tmp_path / "results"
    ask = [*command(task, results, "--methods", "linear", "--seeds", "0", *QUICK), "--shots", "1,2"]
    ask += ["--shot-seed", "1"]
    assert main([*ask, "--dry-run"]) == 0
    assert "2 of 2 runs" in capsys.readouterr().out
    assert main(ask) == 0
    said = capsys.readouterr()
    assert "colours · 2 shots, shot seed 1 · linear · seed 0" in said.err
    assert "2 shots" in said.out
    runs, problems = Store(results).load_runs()
    assert not problems
    assert {run.spec.task.suite for run in runs} == {"own@1shot.seed1", "own@2shot.seed1"}
    assert len({run.spec.task.data for run in runs}) == 2
    (folder,) = (results / "few_shots").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "few_shots.csv",
        "few_shots.svg",
        "table.md",
    }
    header, *lines = (folder / "few_shots.csv").read_text().splitlines()
    cells = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    assert [(cell["shots"], cell["draws"]) for cell in cells] == [("1", "1"), ("2", "1")]
    accuracies = [100 * run.accuracy for run in sorted(runs, key=lambda run: run.spec.task.suite)]
    assert [float(cell["accuracy"]) for cell in cells] == pytest.approx(accuracies, abs=0.006)


@pytest.mark.slow
def test_draws_are_verified_and_rerun(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, results = make_task(), tmp_path / "results"
    ask = command(task, results, "--methods", "linear", "--seeds", "0", *QUICK)
    assert main([*ask, "--shots", "2", "--shot-seed", "1"]) == 0
    (run,), _ = Store(results).load_runs()
    assert main(["verify", "--results", str(results)]) == 0
    capsys.readouterr()
    assert main(["rerun", run.run_id, "--data", str(task), "--results", str(results), "--weights", "random"]) == 0
    assert "bit-identical" in capsys.readouterr().out


def test_tuning_chooses_on_val_and_refits_on_the_shots_alone(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All trials end before test is opened, and each run opens it once: images, and labels for the accuracy."""
    events: list[str] = []

    def watched(kind: str) -> Any:
        before = getattr(CachedTask, kind)

        def opened(self: CachedTask, split: str) -> Any:
            events.append(f"{split} {kind}")
            return before(self, split)

        return opened

    store_save = Store.save

    def save(self: Store, spec: Any, *more: Any, **named: Any) -> Any:
        events.append(f"stored {spec.split}")
        return store_save(self, spec, *more, **named)

    monkeypatch.setattr(CachedTask, "images", watched("images"))
    monkeypatch.setattr(CachedTask, "labels", watched("labels"))
    monkeypatch.setattr(Store, "save", save)
    results = tmp_path / "results"
    ask = command(make_task(), results, "--methods", "linear", "--seeds", "0", *QUICK)
    ask = ["tune", *ask[1:], "--shots", "2", "--shot-seed", "1", "--max-configs", "2"]
    assert main(ask) == 0
    assert events.count("stored val") == 2
    assert events.count("stored test") == 1
    last_trial = len(events) - events[::-1].index("stored val")
    assert not [event for event in events[:last_trial] if event.startswith("test ")]
    assert [event for event in events if event == "test images"] == ["test images"]
    (refit,) = (run for run in Store(results).load_runs()[0] if run.spec.split == "test")
    record = json.loads(refit.path.read_text())
    assert record["facts"]["tuning"]["configurations"] == 2
    assert refit.spec.task.suite == "own@2shot.seed1"


@pytest.mark.parametrize(("more", "status"), [(["--shots", "7"], 1), (["--shot-seed", "1"], 2)])
def test_impossible_draws_are_refused(
    more: list[str], status: int, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    assert main([*command(make_task(), tmp_path / "results", "--methods", "linear"), *more]) == status
    assert not (tmp_path / "results" / "runs").exists()


def test_a_look_at_draws_names_each(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = [*command(make_task(), tmp_path / "r", "--methods", "linear", "--seeds", "0", *QUICK), "--limit-test", "4"]
    assert main([*ask, "--shots", "1", "2", "--shot-seed", "0"]) == 0
    header, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["method", "own@1shot.seed0/colours", "own@2shot.seed0/colours"]
