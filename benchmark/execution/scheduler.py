"""The scheduler of a sweep: which run comes next, and what became of each."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..plan import PlannedRun
from ..storage.json_io import StoreError
from ..storage.store import Store
from . import signals
from .errors import ResultsNotWritable
from .locks import RunLocks
from .messages import RunFailed, RunFinished, WorkerLost
from .progress import Progress

TRIES = 3
"""Workers that a run may lose before it is recorded as failed (ours)."""

ModelKey = tuple[str, str]
"""Backbone and method; runs with the same model key reuse the built and compiled model."""


@dataclass
class SweepResult:
    """Outcome of a sweep."""

    finished: int = 0
    failed: list[tuple[PlannedRun, str]] = field(default_factory=list)
    """Runs and the reasons of their failures."""
    left: int = 0
    """Number of runs not started for lack of time."""
    elsewhere: int = 0
    """Number of runs that another command executes or has executed meanwhile."""


class Scheduler:
    """Hands out the runs of a sweep one at a time; each is locked, so that no other command executes it too.

    Args:
        deadline: on `time.monotonic`; no run is handed out that cannot end before it.
    """

    def __init__(
        self, runs: Sequence[PlannedRun], store: Store, progress: Progress, deadline: float | None = None
    ) -> None:
        self.result = SweepResult()
        self._store, self._progress, self._deadline = store, progress, deadline
        self._locks = RunLocks(store.root / "claims")
        self._stored_before = store.finished([run.spec for run in runs])
        self._waiting: dict[ModelKey, deque[tuple[int, PlannedRun]]] = {}
        """Model key -> (position in the plan, run)."""
        self._running: dict[str, tuple[ModelKey, int]] = {}
        """Run ID -> (model key, repetitions stored at dispatch)."""
        self._locked_elsewhere: list[PlannedRun] = []
        self._losses: Counter[str] = Counter()
        """Run ID -> number of workers lost."""
        for position, run in enumerate(runs):
            self._waiting.setdefault(model_key(run), deque()).append((position, run))

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(self, *_: object) -> None:
        self._locks.close()

    def next_run(self, last: ModelKey | None = None) -> PlannedRun | None:
        """Return the next run, or None if this command can start no more.

        A worker keeps the model of its last run as long as there are runs for it.  Otherwise it takes the first run
        of the plan whose model no other worker has, or else helps with the model that has most work left.
        """
        while self.waiting():
            run, second_try = self._pick(last)
            if self._deadline is not None and time.monotonic() + self._progress.pace.expected(run) > self._deadline:
                self.result.left += 1
                self._progress.ended(run, "not started: no time left for it")
            elif self._lock(run, second_try):
                self._quarantine_damaged(run)
                self._running[run.spec.run_id()] = model_key(run), len(self._store.repetitions(run.spec))
                return run
        return None

    def complete(self, run: PlannedRun, finished: RunFinished) -> None:
        """Count a run that its worker has stored."""
        self._release(run)
        self.result.finished += 1
        self._progress.finished(run, finished)

    def mark_failed(self, run: PlannedRun, failure: RunFailed) -> None:
        """Record a failure.

        Raises:
            ResultsNotWritable: the record cannot be written.
        """
        try:
            self._store.save_failure(run.spec, failure.reason, failure.traceback, failure.error_type)
        except StoreError as error:
            raise ResultsNotWritable(f"{run} failed ({failure.reason}) and cannot be recorded: {error}") from None
        self._release(run)
        self.result.failed.append((run, failure.reason))
        self._progress.ended(run, f"FAILED: {failure.reason}")

    def recover_if_stored(self, run: PlannedRun) -> bool:
        """If the lost worker had already stored the result, mark the run finished and return True."""
        stored = len(self._store.repetitions(run.spec)) > self._running[run.spec.run_id()][1]
        if stored:
            self._release(run)
            self.result.finished += 1
            self._progress.ended(run, "stored; its worker was lost right after that")
        return stored

    def requeue(self, run: PlannedRun, reason: str) -> None:
        """Put the run of a lost worker back, first of its model; record it as failed after `TRIES` losses."""
        self._losses[run.spec.run_id()] += 1
        if self._losses[run.spec.run_id()] == TRIES:
            self.mark_failed(run, RunFailed(f"{reason}, in each of {TRIES} tries", WorkerLost.__name__))
            return
        self._progress.requeued(run, reason)
        self._release(run)
        self._waiting.setdefault(model_key(run), deque()).appendleft((-1, run))

    def waiting(self) -> int:
        """Return the number of runs that `next_run` may still hand out."""
        if signals.shutdown_requested():
            return 0
        return sum(map(len, self._waiting.values())) + len(self._locked_elsewhere)

    def _release(self, run: PlannedRun) -> None:
        self._locks.release(run.spec.run_id())
        del self._running[run.spec.run_id()]

    def _pick(self, last: ModelKey | None) -> tuple[PlannedRun, bool]:
        """Return a run, and True if another command held its lock at the first try."""
        waiting = [key for key, runs in self._waiting.items() if runs]
        if not waiting:
            return self._locked_elsewhere.pop(), True
        taken = {key for key, _ in self._running.values()}
        if last in waiting:
            key = last
        elif free := [key for key in waiting if key not in taken]:
            key = min(free, key=lambda key: self._waiting[key][0][0])
        else:
            key = max(waiting, key=lambda key: sum(run.seconds for _, run in self._waiting[key]))
        return self._waiting[key].popleft()[1], False

    def _lock(self, run: PlannedRun, second_try: bool) -> bool:
        """Lock a run, unless another command runs it or has run it since the sweep began."""
        run_id = run.spec.run_id()
        locked = self._locks.acquire(run_id, str(run))
        if not locked and not second_try:
            self._locked_elsewhere.append(run)
            return False
        reason = "" if locked else f"{self._locks.holder(run_id) or 'another command'} runs it"
        if run_id not in self._stored_before and self._store.has(run.spec):
            reason = "another command has run it meanwhile"
        if not reason:
            return True
        if locked:
            self._locks.release(run_id)
        self.result.elsewhere += 1
        self._progress.ended(run, f"not started: {reason}")
        return False

    def _quarantine_damaged(self, run: PlannedRun) -> None:
        """Move damaged records away before repetitions are counted, so that the count stays comparable."""
        for problem in self._store.latest(run.spec)[1]:
            self._progress.say(problem)


def model_key(run: PlannedRun) -> ModelKey:
    """Return the backbone and method of a run."""
    return run.spec.backbone.name, run.spec.method.spec
