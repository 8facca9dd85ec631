"""Progress of a sweep: lines, bars, estimates."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vtab_peft.benchmark.engine.epoch import EpochFacts
from vtab_peft.benchmark.execution.messages import ProgressUpdate, RunFinished
from vtab_peft.benchmark.execution.progress import Pace, Progress, duration

FINISHED = RunFinished(Path("x.json"), 0.5, 1.0, 100.0, None)


class Run(SimpleNamespace):
    def __str__(self) -> str:
        return f"seed {self.spec.seed}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def make_run(fake: Any) -> Callable[..., Any]:
    def make_run(seed: int, seconds: float = 10.0) -> Any:
        return Run(spec=fake.spec(seed=seed), seconds=seconds)

    return make_run


def test_pace_learns_from_finished_runs(make_run: Callable[..., Any]) -> None:
    runs = [make_run(0, 10.0), make_run(1, 0.1), make_run(2, 19.9)]
    pace = Pace(runs)
    assert pace.expected(runs[0]) == 10.0
    pace.observe(runs[1], 2.1)
    assert pace.expected(runs[0]) == pytest.approx(12, rel=0.01)
    pace.observe(runs[2], 60.0)
    assert pace.expected(runs[0]) == pytest.approx(24, rel=0.01)


@pytest.mark.parametrize(("workers", "left"), [(("here/1",), "35 s"), (("here/1", "here/2"), "8 s")])
def test_lines_show_result_speed_and_time_left(
    workers: tuple[str, ...], left: str, make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run estimated at 10 s took 60 s, which the pace averages with its first guess; a second run is 20 s in."""
    runs = [make_run(seed) for seed in range(2)]
    out, now = io.StringIO(), [0.0]
    monkeypatch.setattr("vtab_peft.benchmark.execution.progress.time.monotonic", lambda: now[0])
    progress = Progress(runs, out)
    busy: dict[str, Any] = {}
    for worker, started in zip(workers, runs, strict=False):
        now[0] = 40.0 * runs.index(started)
        busy[worker] = started
        progress.show(busy)
    now[0] = 60.0
    progress.finished(runs[0], FINISHED)
    assert "[1/2]" in out.getvalue()
    assert "50.0 %  in 1 s, 100 images/s" in out.getvalue()
    assert f"{left} left" in out.getvalue()


def test_a_terminal_shows_epochs_of_one_worker_and_states_of_two(make_run: Callable[..., Any]) -> None:
    runs, out = [make_run(seed) for seed in range(2)], Terminal()
    progress = Progress(runs, out)
    progress.show({"here/1": runs[0]}, {"here/1": ProgressUpdate("train", 2, 3)})
    assert "seed 0:" in out.getvalue()
    assert "2/3" in out.getvalue()
    progress.show({"here/1": runs[0], "here/2": None}, {"here/1": ProgressUpdate("train", 3, 3)})
    assert "3/3" not in out.getvalue()
    assert "here/2 idle" in out.getvalue()
    progress.close()


@pytest.mark.parametrize(("stream", "lines"), [(Terminal(), 3), (io.StringIO(), 1)])
def test_a_line_per_epoch_on_a_terminal_and_per_minute_in_logs(
    stream: io.StringIO, lines: int, make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, now = make_run(0), [0.0]
    monkeypatch.setattr("vtab_peft.benchmark.execution.progress.time.monotonic", lambda: now[0])
    progress = Progress([run], stream)
    for epoch in (1, 2, 3):
        for now[0] in (25.0 * epoch, 25.0 * epoch + 0.5):  # polled twice
            facts = EpochFacts(0.25, 1e-3, 1000, 20.0, 0.5)
            progress.show({"here/1": run}, {"here/1": ProgressUpdate("train", epoch, 4, facts)})
    said = [line for line in stream.getvalue().splitlines() if "loss 0.25" in line]
    assert len(said) == lines
    assert all(text in said[-1] for text in ("epoch 3/4", "50.0 %", "50 images/s", "20 s left"))
    progress.finished(run, FINISHED)
    assert "run x" in stream.getvalue()
    progress.close()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (7500, "2 h 05 min")])
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
