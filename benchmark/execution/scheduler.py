"""What a sweep still has to do and what became of the rest, whoever runs the cells."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..plan import PlannedRun
from ..storage.store import Store
from . import signals as termination
from .locks import Claims
from .progress import Progress
from .worker import RunSummary

Kind = tuple[str, str]
"""Backbone and method: cells of one kind run on one model, which stays as it was built and compiled."""


class ResultsNotWritable(Exception):
    """Results cannot be stored; going on would lose work."""


@dataclass
class SweepResult:
    """What became of a sweep."""

    finished: int = 0
    failed: list[tuple[PlannedRun, str]] = field(default_factory=list)
    left: int = 0
    """Cells not started for lack of time."""
    elsewhere: int = 0
    """Cells that another command runs, or has run meanwhile."""


class Scheduler:
    """The cells of a sweep, handed out one at a time; each is claimed, so that no other command runs it too.

    deadline: on `time.monotonic`; no cell is handed out that cannot end before it.
    """

    def __init__(
        self, cells: Sequence[PlannedRun], store: Store, progress: Progress, deadline: float | None = None
    ) -> None:
        self.tally = SweepResult()
        self._store, self._progress, self._deadline = store, progress, deadline
        self._claims = Claims(store.root / "claims")
        self._repeated = store.finished([cell.spec for cell in cells])
        self._waiting: dict[Kind, deque[tuple[int, PlannedRun]]] = {}
        self._busy: dict[str, tuple[Kind, int]] = {}
        """Of each key that is out: its kind, and how many times it was stored before."""
        self._claimed_elsewhere: list[PlannedRun] = []
        for place, cell in enumerate(cells):
            self._waiting.setdefault(kind(cell), deque()).append((place, cell))

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(self, *_: object) -> None:
        self._claims.close()

    def take(self, warm: Kind | None = None) -> PlannedRun | None:
        """The next cell, None when there is none left that this command can run.

        warm: what the worker ran before; it goes on with that.  Otherwise the plan's order holds, and where several
        workers ask, each begins with what no other is busy with, or else helps where most is left.
        """
        while not termination.shutdown_requested() and (cell := self._next(warm)) is not None:
            if self._deadline is not None and time.monotonic() + self._progress.pace.expected(cell) > self._deadline:
                self.tally.left += 1
                self._progress.skipped(cell, "no time left for it")
            elif self._is_ours(cell):
                self._set_damaged_aside(cell)
                stored = len(self._store.repetitions(cell.spec))
                self._busy[cell.spec.run_id()] = kind(cell), stored
                return cell
        return None

    def settle(self, cell: PlannedRun, word: str, answer: Any) -> None:
        """word, answer: what a worker says of a cell it ends with, as the top of worker.py lists it.

        Raises:
            ResultsNotWritable: the results folder is full or read-only.
        """
        if word == "unwritable":
            raise ResultsNotWritable(answer)
        self._release(cell)
        if isinstance(answer, RunSummary):
            self.tally.finished += 1
            self._progress.finished(cell, answer)
        else:
            self.tally.failed.append((cell, answer))
            self._progress.failed(cell, answer)

    def rescue(self, cell: PlannedRun) -> bool:
        """Whether a lost worker had stored the cell's result before its end; then that is settled."""
        stored = len(self._store.repetitions(cell.spec)) > self._busy[cell.spec.run_id()][1]
        if stored:
            self._release(cell)
            self.tally.finished += 1
            self._progress.rescued(cell)
        return stored

    def give_up(self, cell: PlannedRun, reason: str) -> None:
        """Record that a cell's worker was lost."""
        self._store.put_failure(cell.spec, reason, "")
        self.settle(cell, "failed", reason)

    def put_back(self, cell: PlannedRun) -> None:
        """Let another worker have it, before anything else of its kind."""
        self._release(cell)
        self._waiting.setdefault(kind(cell), deque()).appendleft((-1, cell))

    def waiting(self) -> int:
        """Cells that `take` may still hand out."""
        if termination.shutdown_requested():
            return 0
        return sum(map(len, self._waiting.values())) + len(self._claimed_elsewhere)

    def _release(self, cell: PlannedRun) -> None:
        self._claims.release(cell.spec.run_id())
        del self._busy[cell.spec.run_id()]

    def _next(self, warm: Kind | None) -> PlannedRun | None:
        full = [kind for kind, cells in self._waiting.items() if cells]
        if not full:
            return self._second_look()
        busy = {kind for kind, _ in self._busy.values()}
        if warm in full:
            chosen = warm
        elif free := [kind for kind in full if kind not in busy]:
            chosen = min(free, key=lambda kind: self._waiting[kind][0][0])
        else:
            chosen = max(full, key=lambda kind: sum(cell.seconds for _, cell in self._waiting[kind]))
        return self._waiting[chosen].popleft()[1]

    def _second_look(self) -> PlannedRun | None:
        """A cell that another command had claimed before and has no more, without a result."""
        while self._claimed_elsewhere:
            cell = self._claimed_elsewhere.pop()
            key = cell.spec.run_id()
            if self._is_done_elsewhere(cell):
                continue
            if self._claims.take(key, str(cell)):
                self._claims.release(key)
                return cell
            self.tally.elsewhere += 1
            self._progress.skipped(cell, f"{self._claims.holder(key) or 'another command'} runs it")
        return None

    def _is_ours(self, cell: PlannedRun) -> bool:
        if not self._claims.take(cell.spec.run_id(), str(cell)):
            self._claimed_elsewhere.append(cell)
            return False
        if self._is_done_elsewhere(cell):
            self._claims.release(cell.spec.run_id())
            return False
        return True

    def _set_damaged_aside(self, cell: PlannedRun) -> None:
        """So that no repetition is compared with it, and none is counted that goes away meanwhile."""
        complaints: list[str] = []
        self._store.get(cell.spec, complaints)
        for complaint in complaints:
            self._progress.say(complaint)

    def _is_done_elsewhere(self, cell: PlannedRun) -> bool:
        done = cell.spec.run_id() not in self._repeated and self._store.has(cell.spec)
        if done:
            self.tally.elsewhere += 1
            self._progress.skipped(cell, "another command has run it meanwhile")
        return done


def kind(cell: PlannedRun) -> Kind:
    return cell.spec.backbone.name, cell.spec.method.spec
