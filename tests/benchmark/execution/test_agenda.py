"""The agenda of a sweep: who gets which cell, and what happens to cells that others run."""

import io
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vtab_peft.benchmark.execution.locks import Claims
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.execution.scheduler import Scheduler, kind
from vtab_peft.benchmark.execution.worker import RunSummary
from vtab_peft.benchmark.storage.store import Store

FINISHED = RunSummary(Path("x.json"), 0.5, 1.0, 100.0, None)
Named = tuple[str, int]


@pytest.fixture
def cells(fake: Any) -> list[Any]:
    """Two seeds of three methods, one seed after the other; `vpt` is the longest."""
    return [
        SimpleNamespace(spec=fake.spec(method=method, seed=seed), seconds=seconds)
        for seed in (0, 1)
        for method, seconds in (("lora", 10.0), ("vpt", 30.0), ("ssf", 20.0))
    ]


@pytest.fixture
def open_agenda(cells: list[Any], tmp_path: Path) -> Callable[..., Scheduler]:
    def open_agenda(**more: Any) -> Scheduler:
        return Scheduler(cells, Store(tmp_path), Progress(cells, io.StringIO()), **more)

    return open_agenda


def name(cell: Any) -> Named | None:
    return cell and (cell.spec.method.name, cell.spec.seed)


def test_one_worker_goes_through_the_plan_in_order(cells: list[Any], open_agenda: Callable[..., Scheduler]) -> None:
    agenda = open_agenda()
    taken = []
    while (cell := agenda.take()) is not None:
        taken.append(cell)
        agenda.settle(cell, "finished", FINISHED)
    assert taken == cells
    assert agenda.tally.finished == 6


def test_workers_stay_with_their_method_and_then_help_where_most_is_left(open_agenda: Callable[..., Scheduler]) -> None:
    agenda = open_agenda()
    a, b = agenda.take(), agenda.take()
    assert (name(a), name(b)) == (("lora", 0), ("vpt", 0)), "the second does not wait for the first's model"
    agenda.settle(a, "finished", FINISHED)
    a = agenda.take(kind(a))
    assert name(a) == ("lora", 1)
    agenda.settle(a, "finished", FINISHED)
    a = agenda.take(kind(a))
    assert name(a) == ("ssf", 0), "a method that nobody is busy with comes before help"
    agenda.settle(a, "finished", FINISHED)
    c = agenda.take()
    assert name(c) == ("ssf", 1)
    agenda.settle(c, "finished", FINISHED)
    assert name(agenda.take(kind(c))) == ("vpt", 1)
    assert agenda.take() is None


def test_what_is_put_back_comes_next_of_its_kind(open_agenda: Callable[..., Scheduler]) -> None:
    agenda = open_agenda()
    cell = agenda.take()
    agenda.put_back(cell)
    assert agenda.waiting() == 6
    assert agenda.take() is cell


@pytest.mark.parametrize("times", [0, 1])
def test_a_result_stored_by_a_worker_that_was_lost_right_after_is_no_loss(
    times: int, cells: list[Any], open_agenda: Callable[..., Scheduler], fake: Any, tmp_path: Path
) -> None:
    """times: how often the cell was stored before the sweep."""
    store = Store(tmp_path)
    for _ in range(times):
        store.put(cells[0].spec, fake.record(), np.zeros(3, dtype=int))
    agenda = open_agenda()
    cell = agenda.take()
    assert cell is cells[0]
    assert not agenda.rescue(cell), "its worker was lost before it stored anything"
    store.put(cell.spec, fake.record(), np.zeros(3, dtype=int))
    assert agenda.rescue(cell)
    assert agenda.tally.finished == 1
    assert not (tmp_path / "claims" / f"{cell.spec.run_id()}.json").exists()


def test_a_damaged_record_is_set_aside_and_named_before_its_cell_is_repeated(
    cells: list[Any], tmp_path: Path, fake: Any
) -> None:
    store, said = Store(tmp_path), io.StringIO()
    store.put(cells[0].spec, fake.record(), np.zeros(3, dtype=int)).write_bytes(b"{")
    agenda = Scheduler(cells, store, Progress(cells, said))
    cell = agenda.take()
    assert cell is cells[0]
    assert "set aside" in said.getvalue()
    assert not store.has(cells[0].spec)
    assert not agenda.rescue(cell)
    store.put(cell.spec, fake.record(), np.zeros(3, dtype=int))
    assert agenda.rescue(cell), "its result is there, and the damaged one was not counted"


def test_a_cell_stored_by_another_command_meanwhile_is_passed_over(
    cells: list[Any], open_agenda: Callable[..., Scheduler], fake: Any, tmp_path: Path
) -> None:
    agenda = open_agenda()
    Store(tmp_path).put(cells[0].spec, fake.record(), np.zeros(3, dtype=int))
    assert agenda.take() is cells[1]
    assert agenda.tally.elsewhere == 1


def test_a_cell_that_was_stored_before_is_repeated(
    cells: list[Any], open_agenda: Callable[..., Scheduler], fake: Any, tmp_path: Path
) -> None:
    Store(tmp_path).put(cells[0].spec, fake.record(), np.zeros(3, dtype=int))
    assert open_agenda().take() is cells[0], "whoever asks for it wants it again"


def test_a_cell_that_another_command_runs_is_left_to_it(
    cells: list[Any], open_agenda: Callable[..., Scheduler], tmp_path: Path
) -> None:
    other = Claims(tmp_path / "claims")
    assert other.take(cells[0].spec.run_id(), "lora")
    agenda = open_agenda()
    rest = [agenda.take() for _ in range(6)]
    assert rest == [*cells[1:], None]
    assert agenda.tally.elsewhere == 1


def test_a_cell_that_another_command_gave_up_is_run_at_the_end(
    cells: list[Any], open_agenda: Callable[..., Scheduler], tmp_path: Path
) -> None:
    other = Claims(tmp_path / "claims")
    assert other.take(cells[0].spec.run_id(), "lora")
    agenda = open_agenda()
    assert agenda.take() is cells[1]
    other.close()
    assert [agenda.take() for _ in range(6)] == [*cells[2:], cells[0], None]
    assert agenda.tally.elsewhere == 0


def test_claims_are_given_back_however_a_sweep_ends(open_agenda: Callable[..., Scheduler], tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), open_agenda() as agenda:
        assert agenda.take() is not None
        assert (tmp_path / "claims").exists()
        raise KeyboardInterrupt
    assert not (tmp_path / "claims").exists()


def test_cells_too_long_for_the_time_left_are_counted_and_shorter_ones_run(
    open_agenda: Callable[..., Scheduler],
) -> None:
    agenda = open_agenda(deadline=time.monotonic() + 15)
    assert [name(agenda.take()) for _ in range(3)] == [("lora", 0), ("lora", 1), None]
    assert agenda.tally.left == 4
