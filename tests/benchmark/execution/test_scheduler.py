"""The scheduler of a sweep: order of runs, runs of other commands, failures, deadlines."""

import io
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vtab_peft.benchmark.execution.errors import ResultsNotWritable
from vtab_peft.benchmark.execution.locks import RunLocks
from vtab_peft.benchmark.execution.messages import RunFailed, RunFinished
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.execution.scheduler import Scheduler, model_key
from vtab_peft.benchmark.storage.store import Store

FINISHED = RunFinished(Path("x.json"), 0.5, 1.0, 100.0, None)


@pytest.fixture
def runs(fake: Any) -> list[Any]:
    """Two seeds of three methods, one seed after the other; `vpt` is the longest."""
    return [
        SimpleNamespace(spec=fake.spec(method=method, seed=seed), seconds=seconds)
        for seed in (0, 1)
        for method, seconds in (("lora", 10.0), ("vpt", 30.0), ("ssf", 20.0))
    ]


@pytest.fixture
def schedule(runs: list[Any], tmp_path: Path) -> Callable[..., Scheduler]:
    def schedule(**more: Any) -> Scheduler:
        return Scheduler(runs, Store(tmp_path), Progress(runs, io.StringIO()), **more)

    return schedule


def name(run: Any) -> tuple[str, int] | None:
    return run and (run.spec.method.name, run.spec.seed)


def test_one_worker_follows_the_plan(runs: list[Any], schedule: Callable[..., Scheduler]) -> None:
    scheduler = schedule()
    order = []
    while (run := scheduler.next_run()) is not None:
        order.append(run)
        scheduler.complete(run, FINISHED)
    assert order == runs
    assert scheduler.result.finished == 6


def test_workers_keep_their_model_then_help(schedule: Callable[..., Scheduler]) -> None:
    scheduler = schedule()
    a, b = scheduler.next_run(), scheduler.next_run()
    assert (name(a), name(b)) == (("lora", 0), ("vpt", 0)), "the second worker takes another model"
    scheduler.complete(a, FINISHED)
    a = scheduler.next_run(model_key(a))
    assert name(a) == ("lora", 1)
    scheduler.complete(a, FINISHED)
    a = scheduler.next_run(model_key(a))
    assert name(a) == ("ssf", 0), "a model that no worker has comes before help"
    scheduler.complete(a, FINISHED)
    c = scheduler.next_run()
    assert name(c) == ("ssf", 1)
    scheduler.complete(c, FINISHED)
    assert name(scheduler.next_run(model_key(c))) == ("vpt", 1)
    assert scheduler.next_run() is None


def test_a_requeued_run_comes_first(schedule: Callable[..., Scheduler]) -> None:
    scheduler = schedule()
    run = scheduler.next_run()
    scheduler.requeue(run, "its worker was killed")
    assert scheduler.waiting() == 6
    assert scheduler.next_run() is run


@pytest.mark.parametrize("times", [0, 1])
def test_a_result_stored_before_the_crash_counts(
    times: int, runs: list[Any], schedule: Callable[..., Scheduler], fake: Any, tmp_path: Path
) -> None:
    """times: repetitions stored before the sweep."""
    store = Store(tmp_path)
    for _ in range(times):
        store.save(runs[0].spec, fake.record(), np.zeros(3, dtype=int))
    scheduler = schedule()
    run = scheduler.next_run()
    assert run is runs[0]
    assert not scheduler.recover_if_stored(run), "nothing was stored by the lost worker"
    store.save(run.spec, fake.record(), np.zeros(3, dtype=int))
    assert scheduler.recover_if_stored(run)
    assert scheduler.result.finished == 1
    assert not (tmp_path / "claims" / f"{run.spec.run_id()}.json").exists()


def test_a_damaged_record_is_quarantined_before_its_run(runs: list[Any], tmp_path: Path, fake: Any) -> None:
    store, out = Store(tmp_path), io.StringIO()
    damaged = store.save(runs[0].spec, fake.record(), np.zeros(3, dtype=int))
    damaged.write_bytes(b"{")
    scheduler = Scheduler(runs, store, Progress(runs, out))
    run = scheduler.next_run()
    assert run is runs[0]
    assert str(damaged) in out.getvalue()
    assert not store.has(runs[0].spec)
    assert not scheduler.recover_if_stored(run)
    store.save(run.spec, fake.record(), np.zeros(3, dtype=int))
    assert scheduler.recover_if_stored(run), "the damaged record was not counted"


def test_a_run_stored_by_another_command_is_skipped(
    runs: list[Any], schedule: Callable[..., Scheduler], fake: Any, tmp_path: Path
) -> None:
    scheduler = schedule()
    Store(tmp_path).save(runs[0].spec, fake.record(), np.zeros(3, dtype=int))
    assert scheduler.next_run() is runs[1]
    assert scheduler.result.elsewhere == 1


def test_a_run_stored_before_is_repeated(
    runs: list[Any], schedule: Callable[..., Scheduler], fake: Any, tmp_path: Path
) -> None:
    Store(tmp_path).save(runs[0].spec, fake.record(), np.zeros(3, dtype=int))
    assert schedule().next_run() is runs[0]


def test_a_run_locked_by_another_command_is_left(
    runs: list[Any], schedule: Callable[..., Scheduler], tmp_path: Path
) -> None:
    assert RunLocks(tmp_path / "claims").acquire(runs[0].spec.run_id(), "lora")
    scheduler = schedule()
    assert [scheduler.next_run() for _ in range(6)] == [*runs[1:], None]
    assert scheduler.result.elsewhere == 1


def test_a_run_unlocked_by_another_command_is_run_last(
    runs: list[Any], schedule: Callable[..., Scheduler], tmp_path: Path
) -> None:
    other = RunLocks(tmp_path / "claims")
    assert other.acquire(runs[0].spec.run_id(), "lora")
    scheduler = schedule()
    assert scheduler.next_run() is runs[1]
    other.close()
    assert [scheduler.next_run() for _ in range(6)] == [*runs[2:], runs[0], None]
    assert scheduler.result.elsewhere == 0


def test_locks_are_released_when_a_sweep_is_interrupted(schedule: Callable[..., Scheduler], tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), schedule() as scheduler:
        assert scheduler.next_run() is not None
        assert (tmp_path / "claims").exists()
        raise KeyboardInterrupt
    assert not (tmp_path / "claims").exists()


def test_no_run_starts_that_cannot_end_before_the_deadline(schedule: Callable[..., Scheduler]) -> None:
    scheduler = schedule(deadline=time.monotonic() + 15)
    assert [name(scheduler.next_run()) for _ in range(3)] == [("lora", 0), ("lora", 1), None]
    assert scheduler.result.left == 4


def test_a_failure_is_recorded_with_its_type(schedule: Callable[..., Scheduler], tmp_path: Path) -> None:
    scheduler = schedule()
    run = scheduler.next_run()
    scheduler.mark_failed(run, RunFailed("Diverged: the loss became nan", "Diverged", "Traceback ..."))
    assert scheduler.result.failed == [(run, "Diverged: the loss became nan")]
    (failure,), problems = Store(tmp_path).load_failures()
    assert (failure.spec, failure.error_type, problems) == (run.spec, "Diverged", [])
    assert failure.traceback
    assert Store(tmp_path).diverged(run.spec)


def test_a_failure_that_cannot_be_recorded_ends_the_sweep(schedule: Callable[..., Scheduler], tmp_path: Path) -> None:
    scheduler = schedule()
    run = scheduler.next_run()
    (tmp_path / "failed").write_text("no folder")
    with pytest.raises(ResultsNotWritable) as raised:
        scheduler.mark_failed(run, RunFailed("Diverged: the loss became nan", "Diverged"))
    assert "the loss became nan" in str(raised.value)
    assert str(tmp_path / "failed") in str(raised.value)
