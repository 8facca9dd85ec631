"""SIGTERM: no new run starts, the running one may finish, no partial file is left, the exit status is 143."""

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
from in_process import InProcessBackend, done
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution import signals
from vtab_peft.benchmark.execution.messages import Resolved, ResolveRequest, RunFinished, WorkerConfig
from vtab_peft.benchmark.execution.pool import WorkerPool
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.execution.scheduler import Scheduler
from vtab_peft.benchmark.execution.signals import Terminated, exit_on_sigterm, graceful_shutdown, shutdown_requested
from vtab_peft.benchmark.storage.store import Store


def send_sigterm() -> None:
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


def test_work_that_ends_in_time_completes(capfd: pytest.CaptureFixture[str]) -> None:
    done = []

    def work() -> None:
        send_sigterm()
        done.append(shutdown_requested())

    with pytest.raises(Terminated):
        within(graceful_shutdown(60), work)
    assert done == [True]
    assert "60 s" in capfd.readouterr().err


@pytest.mark.parametrize(("grace", "count"), [(0.1, 1), (0, 1), (60, 2)])
def test_no_time_left_or_a_second_signal_ends_the_work(grace: float, count: int) -> None:
    def work() -> None:
        for _ in range(count):
            send_sigterm()
        time.sleep(60)

    started = time.monotonic()
    with pytest.raises(Terminated):
        within(graceful_shutdown(grace), work)
    assert time.monotonic() - started < 30


def test_outside_a_sweep_the_process_ends_at_once() -> None:
    released = []

    def work() -> None:
        try:
            send_sigterm()
            time.sleep(60)
        finally:
            released.append(True)

    with pytest.raises(Terminated):
        within(exit_on_sigterm(), work)
    assert released


def test_other_threads_set_no_handlers() -> None:
    ran = []

    def work() -> None:
        with exit_on_sigterm(), graceful_shutdown(1):
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran


class Interrupted(InProcessBackend):
    """Backend whose worker receives SIGTERM during its first run."""

    asked = 0

    def spawn(self, number: int) -> Any:
        def run(_: Any) -> Any:
            self.asked += 1
            send_sigterm()
            return done(RunFinished(Path("x.json"), 0.5, 1.0, 100.0, None))

        resolved: Any = Resolved(SimpleNamespace(ref="5e"), [])  # type: ignore[arg-type]
        return SimpleNamespace(name="", model=None, progress=None, resolve=lambda _: done(resolved), run=run)


def test_the_running_run_is_the_last(tmp_path: Path, fake: Any) -> None:
    runs: Any = [SimpleNamespace(spec=fake.spec(seed=seed), seconds=1.0) for seed in range(3)]
    backend = Interrupted(1, WorkerConfig(tmp_path, Numerics(1)))
    pool, results = WorkerPool(backend), []
    pool.resolve(ResolveRequest("toy_vit", None, None, "fp32", []))
    with pytest.raises(Terminated):
        within(graceful_shutdown(60), lambda: results.append(pool.execute(runs, Store(tmp_path), Progress(runs))))
    assert [(result.finished, result.failed) for result in results] == [(1, [])]
    assert backend.asked == 1
    assert not list(tmp_path.iterdir()), "a lock was left"


def test_the_scheduler_hands_out_nothing_after_sigterm(
    tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: Any = [SimpleNamespace(spec=fake.spec(), seconds=1.0)]
    with Scheduler(runs, Store(tmp_path), Progress(runs)) as scheduler:
        assert scheduler.waiting() == 1
        monkeypatch.setattr(signals, "_requested", True)
        assert scheduler.waiting() == 0
        assert scheduler.next_run() is None
        monkeypatch.undo()


def test_the_command_exits_with_143(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "vtab_peft.benchmark.commands.report.write_report", lambda *_, **__: send_sigterm() or time.sleep(60)
    )
    assert main(["report", "--results", str(tmp_path)]) == 143
    err = capsys.readouterr().err
    assert "SIGTERM" in err
    assert err.count("\n") == 1, "a traceback"
