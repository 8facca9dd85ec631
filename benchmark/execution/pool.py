"""Several workers at once, here or on other machines: whoever is free takes the next cell.

A cell whose worker is lost goes to another one; if that happens `TRIES` times, the cell is taken for the culprit,
recorded as failed and left.
"""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..plan import PlannedRun
from ..storage.store import Store
from .progress import Progress
from .scheduler import Kind, Scheduler, SweepResult, kind
from .supervised_worker import Answer, PoolBackend, WorkerHandle
from .worker import ResolveRequest
from .worker_process import ConfigurationError, Description

TRIES = 3
"""Workers that a cell may lose before it is taken for the culprit (ours)."""
TICK_SECONDS = 1.0
"""Between two looks at who is there (ours)."""


class WorkerPool:
    """The executor of several workers."""

    def __init__(self, office: PoolBackend) -> None:
        self._office = office
        self._hired = 0
        self._turned_away = 0
        self._request: ResolveRequest | None = None
        self._description: Description | None = None
        self._arriving: dict[Future[Answer], WorkerHandle] = {}
        self._idle: list[tuple[WorkerHandle, str, Kind | None]] = []
        """WorkerHandle, place, and what it ran last."""
        self._running: dict[Future[Answer], tuple[WorkerHandle, str, PlannedRun]] = {}

    def describe(self, request: ResolveRequest) -> Description:
        """What names mean to the first worker; others that find something else are not given cells."""
        weights = request.weights
        absolute = str(Path(weights).resolve()) if weights and Path(weights).exists() else weights
        self._request = replace(request, weights=absolute)
        self._hire()
        (arrival,) = self._arriving
        word, answer = arrival.result()
        if word == "refused":
            raise ConfigurationError(answer.partition(": ")[2])
        self._description = answer[1]
        return answer[1]

    def execute(
        self, cells: Sequence[PlannedRun], store: Store, progress: Progress, deadline: float | None = None
    ) -> SweepResult:
        """Raises `ResultsNotWritable`, `ConfigurationError` when no worker can do what the plan asks."""
        losses: Counter[str] = Counter()
        for _, place, _ in self._idle:
            progress.idle(place)
        with Scheduler(cells, store, progress, deadline) as agenda:
            while agenda.waiting() or self._running:
                self._recruit(agenda.waiting(), progress)
                self._assign(agenda, progress)
                progress.tick()
                flights = [*self._running, *self._arriving]
                if not flights:
                    time.sleep(TICK_SECONDS)
                for future in wait(flights, TICK_SECONDS, FIRST_COMPLETED).done if flights else ():
                    if future in self._arriving:
                        self._welcome(future, progress)
                    else:
                        self._settle(future, agenda, progress, losses)
            return agenda.tally

    def stop(self) -> None:
        members = [*self._arriving.values(), *(m for m, *_ in self._idle), *(m for m, *_ in self._running.values())]
        with ThreadPoolExecutor(len(members) or 1) as pool:  # each may take a moment to end
            list(pool.map(lambda member: member.stop(), members))
        self._office.close()

    def _hire(self) -> None:
        assert self._request is not None
        self._hired += 1
        member = self._office.hire(self._hired)
        self._arriving[member.describe(self._request)] = member

    def _recruit(self, waiting: int, progress: Progress) -> None:
        there = len(self._arriving) + len(self._idle) + len(self._running)
        wanted = min(self._office.room() - self._turned_away, len(self._running) + waiting)
        for _ in range(wanted - there):
            self._hire()
        if not there and wanted <= 0 and waiting:
            progress.tell_once("no worker is left; waiting for the cluster to offer one (Ctrl-C stops)")

    def _assign(self, agenda: Scheduler, progress: Progress) -> None:
        resting = []
        while self._idle:
            member, place, warm = self._idle.pop()
            if (cell := agenda.take(warm)) is None:
                resting.append((member, place, warm))
            else:
                progress.started(cell, place)
                self._running[member.run(cell)] = member, place, cell
        self._idle = resting

    def _welcome(self, arrival: "Future[Answer]", progress: Progress) -> None:
        """Give a member that has arrived its place, or turn it away if it sees other weights or methods."""
        member = self._arriving.pop(arrival)
        word, answer = _outcome(arrival)
        if word == "described":
            place, description = answer
            if _refs(description) == _refs(self._description):
                self._idle.append((member, place, None))
                progress.idle(place)
                return
            answer = f"{place} has other weights, method versions or plug-in files than where the plan was made"
        self._turned_away += word != "gone"
        progress.say(f"a worker is not used: {answer}")
        member.stop()
        if self._turned_away >= self._office.room():
            raise ConfigurationError(f"no worker can be used: {answer}")

    def _settle(self, flight: "Future[Answer]", agenda: Scheduler, progress: Progress, losses: "Counter[str]") -> None:
        member, place, cell = self._running.pop(flight)
        word, answer = _outcome(flight)
        if word == "gone":
            member.stop()
        else:
            self._idle.append((member, place, kind(cell)))
        if word not in ("gone", "lost"):
            agenda.settle(cell, word, answer)
            return
        losses[cell.spec.run_id()] += 1
        if not agenda.rescue(cell):
            if losses[cell.spec.run_id()] == TRIES:
                agenda.give_up(cell, f"{answer}; so did {TRIES - 1} before it")
            else:
                progress.say(f"{cell}: {answer}; it is run again")
                progress.idle(place)
                agenda.put_back(cell)
        if word == "gone":
            progress.gone(place)


def _outcome(future: "Future[Answer]") -> Answer:
    """What a member answered, or ("gone", reason) where it cannot answer any more."""
    try:
        return future.result()
    except Exception as error:  # whatever the way to the member raises
        return "gone", f"the worker is gone ({type(error).__name__})"


def _refs(description: Description | None) -> Any:
    assert description is not None
    backbone, methods = description
    return backbone.ref, [method.ref for method in methods]
