"""SIGTERM: nothing new is begun, the cell in flight may end, nothing is left half-written, the exit status is 143."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.execution import signals as termination
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.execution.scheduler import Scheduler
from vtab_peft.benchmark.execution.signals import Terminated, exit_on_sigterm, graceful_shutdown, shutdown_requested
from vtab_peft.benchmark.execution.worker import RunSummary
from vtab_peft.benchmark.execution.worker_process import execute
from vtab_peft.benchmark.storage.store import Store


def strike() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers_come_back() -> Any:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)] == before
    assert not shutdown_requested()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def within(block: AbstractContextManager[None], work: Callable[[], Any]) -> None:
    with block:
        work()


def test_work_that_ends_in_time_ends(capfd: pytest.CaptureFixture[str]) -> None:
    done = []

    def work() -> None:
        strike()
        done.append(shutdown_requested())

    with pytest.raises(Terminated):
        within(graceful_shutdown(60), work)
    assert done == [True]
    assert "the one in flight has 60 s to end" in capfd.readouterr().err


@pytest.mark.parametrize(("grace", "signals"), [(0.1, 1), (0, 1), (60, 2)])
def test_the_end_of_the_time_or_no_time_or_a_second_signal_ends_the_work(grace: float, signals: int) -> None:
    def work() -> None:
        for _ in range(signals):
            strike()
        time.sleep(60)

    started = time.monotonic()
    with pytest.raises(Terminated):
        within(graceful_shutdown(grace), work)
    assert time.monotonic() - started < 30


def test_without_a_sweep_it_ends_at_once() -> None:
    released = []

    def work() -> None:
        try:
            strike()
            time.sleep(60)
        finally:
            released.append(True)

    with pytest.raises(Terminated):
        within(exit_on_sigterm(), work)
    assert released


def test_other_threads_leave_signals_alone() -> None:
    ran = []

    def work() -> None:
        with exit_on_sigterm(), graceful_shutdown(1):
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran


class Struck:
    """A worker that is in its first cell when SIGTERM comes."""

    def __init__(self) -> None:
        self.asked = 0

    def run(self, cell: Any, on_progress: Any) -> tuple[str, Any]:
        self.asked += 1
        strike()
        return "finished", RunSummary(Path("x.json"), 0.5, 1.0, 100.0, None)


def test_the_cell_in_flight_is_the_last(tmp_path: Path, fake: Any) -> None:
    cells: Any = [SimpleNamespace(spec=fake.spec(seed=seed), seconds=1.0) for seed in range(3)]
    worker: Any = Struck()
    tallies = []
    with pytest.raises(Terminated):
        within(graceful_shutdown(60), lambda: tallies.append(execute(cells, worker, Store(tmp_path), Progress(cells))))
    assert [(tally.finished, tally.failed) for tally in tallies] == [(1, [])]
    assert worker.asked == 1
    assert not list(tmp_path.iterdir()), "a claim was left"


def test_an_agenda_has_nothing_to_hand_out_when_the_end_is_near(
    tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells: Any = [SimpleNamespace(spec=fake.spec(), seconds=1.0)]
    with Scheduler(cells, Store(tmp_path), Progress(cells)) as agenda:
        assert agenda.waiting() == 1
        monkeypatch.setattr(termination, "_near", True)
        assert agenda.waiting() == 0
        assert agenda.take() is None
        monkeypatch.undo()


def test_the_command_says_so_and_exits_with_143(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vtab_peft.benchmark.commands.run.write_report", lambda *_, **__: strike() or time.sleep(60))
    assert main(["report", "--results", str(tmp_path)]) == 143
    assert capsys.readouterr().err == "vtab-peft: ended by SIGTERM\n", "a report keeps nothing that could go on"
