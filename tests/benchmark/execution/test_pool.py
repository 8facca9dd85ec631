"""The worker pool: lost workers are replaced, runs are retried, workers that see other weights get no runs."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from in_process import done
from vtab_peft.benchmark.execution import pool as pool_module
from vtab_peft.benchmark.execution.errors import ConfigurationError, ResultsNotWritable, WorkerStartError
from vtab_peft.benchmark.execution.messages import (
    ConfigurationRefused,
    Resolved,
    ResolveRequest,
    ResultsUnwritable,
    RunFailed,
    RunFinished,
    WorkerLost,
)
from vtab_peft.benchmark.execution.pool import STARTS, WorkerPool
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.execution.scheduler import TRIES
from vtab_peft.benchmark.storage.store import Store

FINISHED = RunFinished(Path("x.json"), 0.5, 1.0, 100.0, None)
LOST = WorkerLost("the worker was killed by signal 11")
REQUEST = ResolveRequest("toy_vit", None, None, "fp32", ["lora"])
NODE_DIED = RuntimeError("the node died")


def resolved(weights: str = "5e") -> Resolved:
    backbone: Any = SimpleNamespace(ref=weights)
    method: Any = SimpleNamespace(ref="lora")
    return Resolved(backbone, [method])


@dataclass
class FakeBackend:
    """Backend whose workers answer a run with `behave(worker number, seed)`, at once."""

    behave: Callable[[int, int], Any]
    workers: int = 2
    register: Callable[[int], Any] = lambda _: resolved()
    log: list[tuple[int, int]] = field(default_factory=list)
    """(worker number, seed) of every run handed out."""
    stopped: list[int] = field(default_factory=list)
    """Worker numbers, and 0 for the backend."""

    def capacity(self) -> int:
        return self.workers

    def spawn(self, number: int) -> Any:
        def run(run: Any) -> Any:
            self.log.append((number, run.spec.seed))
            return done(self.behave(number, run.spec.seed))

        return SimpleNamespace(
            name="",
            model=None,
            progress=None,
            resolve=lambda _: done(replace(self.register(number), worker=f"here/{number}")),
            run=run,
            stop=lambda: self.stopped.append(number),
        )

    def close(self) -> None:
        self.stopped.append(0)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "TICK_SECONDS", 0.01)


@pytest.fixture
def sweep(fake: Any, tmp_path: Path) -> Callable[..., Any]:
    """Execute runs with seeds 0 to n - 1; return the result and what was printed."""

    def sweep(backend: FakeBackend, n: int = 4) -> Any:
        runs: list[Any] = [SimpleNamespace(spec=fake.spec(seed=seed), seconds=1.0) for seed in range(n)]
        pool, out = WorkerPool(backend), io.StringIO()
        pool.resolve(REQUEST)
        result = pool.execute(runs, Store(tmp_path), Progress(runs, out))
        pool.stop()
        return SimpleNamespace(result=result, out=out.getvalue())

    return sweep


@pytest.mark.parametrize("workers", [1, 2])
def test_every_run_is_executed_once(workers: int, sweep: Callable[..., Any]) -> None:
    backend = FakeBackend(lambda *_: FINISHED, workers)
    ended = sweep(backend)
    assert (ended.result.finished, ended.result.failed) == (4, [])
    assert sorted(seed for _, seed in backend.log) == [0, 1, 2, 3]
    assert sorted(backend.stopped) == list(range(workers + 1))
    assert (", on here/1; " in ended.out) is (workers == 2), "the worker is named only if there are several"
    assert ("runs/s" in ended.out) is (workers == 2)


def test_no_more_workers_than_runs_are_spawned(sweep: Callable[..., Any]) -> None:
    backend = FakeBackend(lambda *_: FINISHED, workers=8)
    sweep(backend, n=3)
    assert len(backend.stopped) <= 1 + 3


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("loss", [LOST, NODE_DIED], ids=["worker", "node"])
def test_a_run_of_a_lost_worker_is_retried(loss: Any, workers: int, sweep: Callable[..., Any]) -> None:
    losses = iter([loss, loss])
    backend = FakeBackend(lambda _, seed: next(losses, FINISHED) if seed == 2 else FINISHED, workers)
    ended = sweep(backend)
    assert (ended.result.finished, ended.result.failed) == (4, [])
    assert [seed for _, seed in backend.log].count(2) == 3
    assert ended.out.count("tried again") == 2


def test_a_lost_node_is_replaced(sweep: Callable[..., Any]) -> None:
    backend = FakeBackend(lambda number, _: NODE_DIED if number == 1 else FINISHED, workers=1)
    assert sweep(backend).result.finished == 4
    assert {number for number, _ in backend.log} == {1, 2}
    assert backend.stopped == [1, 2, 0]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("loss", [LOST, NODE_DIED], ids=["worker", "node"])
def test_a_run_that_loses_three_workers_fails(
    loss: Any, workers: int, sweep: Callable[..., Any], fake: Any, tmp_path: Path
) -> None:
    backend = FakeBackend(lambda _, seed: loss if seed == 1 else FINISHED, workers)
    ended = sweep(backend)
    assert ended.result.finished == 3
    ((run, reason),) = ended.result.failed
    assert run.spec.seed == 1
    assert [seed for _, seed in backend.log].count(1) == TRIES == 3
    (failure,), _ = Store(tmp_path).load_failures()
    assert (failure.reason, failure.error_type, failure.traceback) == (reason, "WorkerLost", "")
    assert ("signal 11" in reason) is (loss is LOST)


def test_a_failed_run_is_not_retried(sweep: Callable[..., Any]) -> None:
    failed = RunFailed("ValueError: no", "ValueError", "Traceback ...")
    backend = FakeBackend(lambda _, seed: failed if seed == 1 else FINISHED)
    ended = sweep(backend)
    assert (ended.result.finished, len(ended.result.failed)) == (3, 1)
    assert len(backend.log) == 4


def test_an_unwritable_folder_ends_the_sweep(sweep: Callable[..., Any]) -> None:
    backend = FakeBackend(lambda *_: ResultsUnwritable("cannot write x: no space left"), workers=1)
    with pytest.raises(ResultsNotWritable, match="no space left"):
        sweep(backend)
    assert len(backend.log) == 1


def test_a_worker_with_other_weights_gets_no_run(sweep: Callable[..., Any]) -> None:
    backend = FakeBackend(lambda *_: FINISHED, register=lambda n: resolved("5e" if n == 1 else "other"))
    ended = sweep(backend)
    assert ended.result.finished == 4
    assert {number for number, _ in backend.log} == {1}
    assert "here/2" in ended.out
    assert len([n for n in backend.stopped if n > 1]) == 1, "its place is not filled again and again"


@pytest.mark.parametrize(
    ("reply", "error"),
    [(ConfigurationRefused("no weights at absent"), ConfigurationError), (LOST, WorkerStartError)],
    ids=["refused", "lost"],
)
def test_errors_of_the_first_worker_are_raised(reply: Any, error: type[Exception], sweep: Callable[..., Any]) -> None:
    with pytest.raises(error) as raised:
        sweep(FakeBackend(lambda *_: FINISHED, register=lambda _: reply))
    assert str(raised.value) == reply.reason


def test_workers_are_stopped_when_no_thread_can_start(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pool_module.ThreadPoolExecutor, "submit", no_thread)
    backend = FakeBackend(lambda *_: FINISHED)
    sweep(backend)
    assert sorted(backend.stopped) == [0, 1, 2]


def test_a_cluster_without_workers_is_waited_for(sweep: Callable[..., Any]) -> None:
    """All nodes die with their first run; after a while there is a new one."""
    capacities: Iterator[int] = iter([1, 1, 0, 0, 0])

    class Flickering(FakeBackend):
        def capacity(self) -> int:
            return next(capacities, 1)

    ended = sweep(Flickering(lambda number, _: NODE_DIED if number == 1 else FINISHED))
    assert ended.result.finished == 4
    assert ended.out.count("waiting for the cluster") == 1


def test_workers_that_never_start_are_given_up(sweep: Callable[..., Any]) -> None:
    """A node of a cluster may lack a package."""
    gone = WorkerLost("the worker cannot be reached", node=True)
    backend = FakeBackend(lambda *_: FINISHED, 2, lambda number: resolved() if number == 1 else gone)
    assert sweep(backend, 40).result.finished == 40
    assert sorted(backend.stopped) == [0, 1, *range(2, 2 + STARTS)]
    alone = FakeBackend(lambda *_: NODE_DIED, 1, lambda number: resolved() if number == 1 else gone)
    with pytest.raises(ConfigurationError, match="cannot be reached"):
        sweep(alone)
