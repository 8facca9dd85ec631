"""The parent of a sweep: time limits, dead and hung workers, full disks, progress in words."""

import io
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vtab_peft.benchmark.engine import backbone
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution import worker_process as executor
from vtab_peft.benchmark.execution.progress import Pace, Progress, duration
from vtab_peft.benchmark.execution.scheduler import ResultsNotWritable
from vtab_peft.benchmark.execution.worker import ResolveRequest, RunSummary, answer
from vtab_peft.benchmark.execution.worker_process import ConfigurationError, WorkerLost, WorkerProcess, execute
from vtab_peft.benchmark.storage.json_io import CorruptRecord, StoreError
from vtab_peft.benchmark.storage.store import Store


def cell(seed: int, fake: Any, seconds: float = 10.0) -> SimpleNamespace:
    return SimpleNamespace(spec=fake.spec(seed=seed), seconds=seconds)


class Scripted:
    """A worker that answers as told."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.restarts, self.asked = list(answers), 0, 0

    def run(self, cell: Any, on_progress: Callable[[str, int, int], None]) -> tuple[str, Any]:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        on_progress("train", 1, 3)
        return answer

    def restart(self) -> None:
        self.restarts += 1


FINISHED = ("finished", RunSummary(Path("x.json"), 0.5, 1.0, 100.0, None))


def test_a_lost_worker_costs_one_cell_and_is_replaced(tmp_path: Path, fake: Any) -> None:
    cells = [cell(seed, fake) for seed in range(3)]
    worker = Scripted(FINISHED, WorkerLost("the worker was killed by signal 11"), FINISHED)
    out = io.StringIO()
    tally = execute(cells, worker, Store(tmp_path), Progress(cells, out))  # type: ignore[arg-type]
    assert (tally.finished, len(tally.failed), worker.restarts) == (2, 1, 1)
    assert "signal 11" in Store(tmp_path).failure(cells[1].spec).read_text()
    assert "FAILED: the worker was killed by signal 11" in out.getvalue()


def test_no_cell_is_started_that_cannot_end_in_time(tmp_path: Path, fake: Any) -> None:
    cells = [cell(0, fake, 1000.0), cell(1, fake, 1.0)]
    worker = Scripted(FINISHED)
    out = io.StringIO()
    tally = execute(cells, worker, Store(tmp_path), Progress(cells, out), time.monotonic() + 100)  # type: ignore[arg-type]
    assert (tally.finished, tally.left, worker.asked) == (1, 1, 1)
    assert "no time left for it" in out.getvalue()


def test_pace_learns_from_finished_cells(fake: Any) -> None:
    cells = [cell(0, fake, 10.0), cell(1, fake, 0.1), cell(2, fake, 19.9)]
    pace = Pace(cells)  # type: ignore[arg-type]
    assert pace.expected(cells[0]) == 10.0  # type: ignore[arg-type]
    pace.observe(cells[1], 2.1)  # type: ignore[arg-type]
    assert pace.expected(cells[0]) == pytest.approx(12, rel=0.01)  # type: ignore[arg-type]
    pace.observe(cells[2], 60.0)  # type: ignore[arg-type]
    assert pace.expected(cells[0]) == pytest.approx(24, rel=0.01)  # type: ignore[arg-type]


def test_a_sweep_stops_when_results_cannot_be_stored(tmp_path: Path, fake: Any) -> None:
    cells = [cell(0, fake), cell(1, fake)]
    worker = Scripted(("unwritable", "cannot write: no space left"))
    with pytest.raises(ResultsNotWritable, match="no space left"):
        execute(cells, worker, Store(tmp_path), Progress(cells, io.StringIO()))  # type: ignore[arg-type]
    assert worker.asked == 1


@pytest.mark.parametrize(("error", "word"), [(CorruptRecord, "failed"), (StoreError, "unwritable")])
def test_a_damaged_record_costs_one_cell_and_a_folder_that_cannot_be_used_the_sweep(
    error: type[StoreError], word: str, fake: Any, tmp_path: Path
) -> None:
    def run(*_: Any) -> Any:
        raise error("x.json")

    worker: Any = SimpleNamespace(run=run, results=tmp_path)
    told, reason = answer(worker, cell(0, fake), None)  # type: ignore[arg-type]
    assert told == word
    assert "x.json" in reason
    assert Store(tmp_path).failure(fake.spec(seed=0)).exists() is (word == "failed")


def test_a_silent_worker_is_taken_for_hung(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "HANG_TIMEOUT_S", 0.05)
    monkeypatch.setattr(executor, "HANG_TIMEOUT_FACTOR", 0.0)
    worker = object.__new__(WorkerProcess)
    worker._pipe, _theirs = multiprocessing.Pipe()
    with pytest.raises(WorkerLost, match="silent"):
        worker.run(cell(0, fake), lambda *_: None)  # type: ignore[arg-type]


def test_a_slow_first_download_is_no_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hub takes three times as long as a worker may be silent, and is gone then."""

    def slow_hub(*_: str) -> str:
        time.sleep(1.5)
        raise OSError("the hub is gone")

    def describe(_: ResolveRequest, tell: Any) -> Any:
        return backbone._from_hub("vit_x", "timm/", tell)

    monkeypatch.setattr(executor, "START_TIMEOUT_S", 0.5)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", slow_hub)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    worker = object.__new__(WorkerProcess)
    worker._pipe, theirs = multiprocessing.Pipe()
    request = ResolveRequest("vit_x", None, None, "fp32", ["linear"])
    there: Any = SimpleNamespace(describe=describe)
    child = threading.Thread(target=lambda: theirs.send(answer(there, request, theirs)))
    child.start()
    with pytest.raises(ConfigurationError, match="the hub is gone"):
        worker.describe(request)
    child.join()
    assert capsys.readouterr().err == "downloading weights of vit_x\n"


def test_after_a_download_a_worker_may_be_silent_no_longer_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "START_TIMEOUT_S", 0.05)
    worker = object.__new__(WorkerProcess)
    worker._pipe, theirs = multiprocessing.Pipe()
    for done in (0, 1):
        theirs.send(("progress", ("downloading weights of vit_x", done, 1)))
    with pytest.raises(WorkerLost, match="silent"):
        worker.describe(ResolveRequest("vit_x", None, None, "fp32", ["linear"]))


def test_an_idle_worker_ends_by_itself(tmp_path: Path) -> None:
    """Killed, it would leave behind what has compiled for it."""
    worker = WorkerProcess(tmp_path, Numerics(threads=1))
    worker.describe(ResolveRequest("toy_vit", "random", None, "fp32", ["linear"]))
    worker.stop()
    assert worker.process.exitcode == 0


@pytest.mark.parametrize(("places", "left"), [(("",), "35 s"), (("here/1", "here/2"), "8 s")])
def test_lines_say_what_ran_how_fast_and_how_much_is_left(
    places: tuple[str, ...], left: str, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell of 10 estimated seconds took 60; the pace counts another that took its 10.  A second worker is 20 in."""
    cells = [cell(seed, fake) for seed in range(2)]
    out, now = io.StringIO(), [0.0]
    monkeypatch.setattr("vtab_peft.benchmark.execution.progress.time.monotonic", lambda: now[0])
    progress = Progress(cells, out)  # type: ignore[arg-type]
    for place, started in zip(places, cells, strict=False):
        now[0] = 40.0 * cells.index(started)
        progress.started(started, place)  # type: ignore[arg-type]
    now[0] = 60.0
    progress.finished(cells[0], FINISHED[1])  # type: ignore[arg-type]
    assert "[1/2]" in out.getvalue()
    assert "50.0 %  in 1 s, 100 images/s" in out.getvalue()
    assert f"{left} left" in out.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (7500, "2 h 05 min")])
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
