"""Several workers: a lost one costs nothing, a cell that kills its workers is given up, strangers get no work."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vtab_peft.benchmark.execution import pool as crew_module
from vtab_peft.benchmark.execution.pool import TRIES, WorkerPool
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.execution.worker import ResolveRequest, RunSummary
from vtab_peft.benchmark.execution.worker_process import ConfigurationError
from vtab_peft.benchmark.storage.store import Store

FINISHED = ("finished", RunSummary(Path("x.json"), 0.5, 1.0, 100.0, None))
REQUEST = ResolveRequest("toy_vit", None, None, "fp32", ["lora"])
GONE = RuntimeError("the node died")


def described(number: int, weights: str = "5e") -> tuple[str, Any]:
    method = SimpleNamespace(ref="lora")
    return "described", (f"here/{number}", (SimpleNamespace(ref=weights), [method]))


def done(answer: Any) -> "Future[Any]":
    future: Future[Any] = Future()
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
    return future


@dataclass
class Workplace:
    """An office whose members answer as `behave(number, seed)` says, at once."""

    behave: Callable[[int, int], Any]
    places: int = 2
    arrive: Callable[[int], Any] = described
    log: list[tuple[int, int]] = field(default_factory=list)
    """(member, seed) of every cell handed out"""
    stopped: list[int] = field(default_factory=list)

    def room(self) -> int:
        return self.places

    def hire(self, number: int) -> Any:
        def run(cell: Any) -> "Future[Any]":
            self.log.append((number, cell.spec.seed))
            return done(self.behave(number, cell.spec.seed))

        return SimpleNamespace(
            describe=lambda _: done(self.arrive(number)), run=run, stop=lambda: self.stopped.append(number)
        )

    def close(self) -> None:
        self.stopped.append(0)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "TICK_SECONDS", 0.01)


@pytest.fixture
def sweep(fake: Any, tmp_path: Path) -> Callable[..., Any]:
    """Runs `n` cells, seeds 0 to n - 1, at a workplace; returns the tally and what was said."""

    def sweep(office: Workplace, n: int = 4) -> Any:
        cells: list[Any] = [SimpleNamespace(spec=fake.spec(seed=seed), seconds=1.0) for seed in range(n)]
        crew, said = WorkerPool(office), io.StringIO()
        crew.describe(REQUEST)
        tally = crew.execute(cells, Store(tmp_path), Progress(cells, said))
        crew.stop()
        return SimpleNamespace(tally=tally, said=said.getvalue(), crew=crew)

    return sweep


def test_every_cell_is_run_once_by_as_many_workers_as_there_is_room_for(sweep: Callable[..., Any]) -> None:
    office = Workplace(lambda *_: FINISHED)
    ended = sweep(office)
    assert (ended.tally.finished, ended.tally.failed) == (4, [])
    assert sorted(seed for _, seed in office.log) == [0, 1, 2, 3]
    assert sorted(office.stopped) == [0, 1, 2]
    assert ", on here/1; " in ended.said
    assert "cells/s" in ended.said


def test_no_more_workers_are_hired_than_there_are_cells(sweep: Callable[..., Any]) -> None:
    office = Workplace(lambda *_: FINISHED, places=8)
    sweep(office, n=3)
    assert len(office.stopped) <= 1 + 3


@pytest.mark.parametrize("loss", [("lost", "the worker was killed by signal 9"), GONE], ids=["worker", "node"])
def test_a_lost_cell_is_run_again_and_nothing_failed(sweep: Callable[..., Any], loss: Any) -> None:
    lost = iter([loss])
    office = Workplace(lambda _, seed: next(lost, FINISHED) if seed == 2 else FINISHED)
    ended = sweep(office)
    assert (ended.tally.finished, ended.tally.failed) == (4, [])
    assert [seed for _, seed in office.log].count(2) == 2
    assert "it is run again" in ended.said


def test_a_node_that_died_is_replaced_by_another(sweep: Callable[..., Any]) -> None:
    office = Workplace(lambda number, _: GONE if number == 1 else FINISHED, places=1)
    assert sweep(office).tally.finished == 4
    assert {number for number, _ in office.log} == {1, 2}
    assert office.stopped == [1, 2, 0]


def test_a_cell_that_kills_its_workers_is_recorded_and_left(
    sweep: Callable[..., Any], fake: Any, tmp_path: Path
) -> None:
    office = Workplace(lambda _, seed: ("lost", "the worker was killed by signal 11") if seed == 1 else FINISHED)
    ended = sweep(office)
    assert ended.tally.finished == 3
    ((cell, reason),) = ended.tally.failed
    assert cell.spec.seed == 1
    assert "signal 11" in reason
    assert [seed for _, seed in office.log].count(1) == TRIES == 3
    assert "signal 11" in Store(tmp_path).failure(fake.spec(seed=1)).read_text()


def test_a_worker_with_other_weights_gets_no_cell(sweep: Callable[..., Any]) -> None:
    office = Workplace(lambda *_: FINISHED, arrive=lambda n: described(n, "5e" if n == 1 else "other"))
    ended = sweep(office)
    assert ended.tally.finished == 4
    assert {number for number, _ in office.log} == {1}
    assert "here/2 has other weights" in ended.said
    assert len([n for n in office.stopped if n > 1]) == 1, "a place that was no good is not tried again and again"


def test_what_the_first_worker_cannot_do_is_refused(sweep: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"^no weights at absent$"):
        sweep(Workplace(lambda *_: FINISHED, arrive=lambda _: ("refused", "here/1: no weights at absent")))


def test_a_cluster_without_workers_is_waited_for(sweep: Callable[..., Any]) -> None:
    """All nodes die with their first cell; then, after a while, there is a new one."""
    rooms: Iterator[int] = iter([1, 1, 0, 0, 0])

    class Flickering(Workplace):
        def room(self) -> int:
            return next(rooms, 1)

    office = Flickering(lambda number, _: GONE if number == 1 else FINISHED)
    ended = sweep(office)
    assert ended.tally.finished == 4
    assert ended.said.count("waiting for the cluster") == 1
