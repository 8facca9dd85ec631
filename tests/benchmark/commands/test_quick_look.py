"""`run --limit-test`: a look at a few test images that leaves no result behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from asking import command
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import quick_look
from vtab_peft.benchmark.commands.quick_look import limited
from vtab_peft.benchmark.execution.scheduler import SweepResult
from vtab_peft.benchmark.plan import PlannedRun
from vtab_peft.datasets.cache import CachedTask


def test_images_are_taken_at_equal_distances(data: CachedTask, tmp_path: Path) -> None:
    n = data.counts["test"]
    few = limited(data, 3, tmp_path / "few")
    assert few.counts == {**data.counts, "test": 3}
    index = [0, round((n - 1) / 2), n - 1]
    assert np.array_equal(few.images("test"), data.images("test")[index])
    assert np.array_equal(few.labels("test"), data.labels("test")[index])
    assert few.files["train"] == data.files["train"]
    assert limited(data, 10 * n, tmp_path / "all").counts == data.counts


def test_a_look_leaves_nothing_behind(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    task, results = make_task(), tmp_path / "results"
    ask = [*command(task, results), "--seeds", "0", "--methods", "linear", "--limit-test", "5"]
    assert main([*ask, "--set", "epochs=1", "probe_epochs=1"]) == 0
    said = capsys.readouterr().out
    assert "5 test images" in said
    assert any(line.split()[0] == "linear" for line in said.splitlines() if line)
    assert not results.exists()
    for more in (["--oracle"], ["--save-adapters"], ["--repeat"], ["--dry-run"], ["--split", "val"], ["--log", "csv"]):
        assert main([*ask, *more]) == 2
        assert more[0] in capsys.readouterr().err


def test_a_look_executes_its_shard_alone(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = []

    def sweep(runs: list[PlannedRun], *_: object) -> SweepResult:
        planned.append([run.spec.seed for run in runs])
        return SweepResult()

    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    monkeypatch.setattr(quick_look, "sweep", sweep)
    monkeypatch.setattr(quick_look, "accuracy_table", lambda *_: "")
    ask = [*command(make_task(), tmp_path / "results"), "--seeds", "0", "1", "--methods", "linear"]
    assert main([*ask, "--limit-test", "5", "--shard", "2/2"]) == 0
    assert planned == [[1]]
