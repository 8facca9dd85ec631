"""A pool of 1..N workers, local or on Ray: an idle worker gets the next run, and a lost worker is replaced."""

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Protocol, TypeVar

from ...datasets.reading import expanded
from ..plan import BackboneInfo, MethodInfo, PlannedRun
from ..storage.store import Store
from . import messages
from .errors import ConfigurationError, ResultsNotWritable, WorkerStartError
from .progress import Progress
from .scheduler import ModelKey, Scheduler, SweepResult, model_key

Reply = TypeVar("Reply")

TICK_SECONDS = 0.5
"""Longest wait before progress and capacity are looked at again (ours)."""
STARTS = 3
"""Workers in a row that cannot be reached at their start, after which no further one is spawned in their place (ours).
"""


class WorkerHandle(Protocol):
    """One worker, on this machine or another."""

    name: str
    """Set by the pool once the worker has answered."""
    model: ModelKey | None
    """Model that the worker holds, set by the pool after each run."""

    @property
    def progress(self) -> messages.ProgressUpdate | None:
        """Latest update of the current run, if the worker reports any."""
        ...

    def resolve(self, request: messages.ResolveRequest) -> "Future[messages.ResolveReply]": ...

    def run(self, run: PlannedRun) -> "Future[messages.RunReply]": ...

    def stop(self) -> None: ...


class PoolBackend(Protocol):
    """Source of workers."""

    def capacity(self) -> int:
        """Return the current maximum number of workers."""
        ...

    def spawn(self, number: int) -> WorkerHandle: ...

    def close(self) -> None: ...


class WorkerPool:
    """Workers of one backend, which resolve a plan's names and execute its runs."""

    def __init__(self, backend: PoolBackend) -> None:
        self._backend = backend
        self._spawned = self._rejected = self._unreached = 0
        self._request: messages.ResolveRequest | None = None
        self._resolved: messages.Resolved | None = None
        self._starting: dict[Future[messages.ResolveReply], WorkerHandle] = {}
        self._idle: list[WorkerHandle] = []
        self._running: dict[Future[messages.RunReply], tuple[WorkerHandle, PlannedRun]] = {}

    def resolve(self, request: messages.ResolveRequest) -> tuple[BackboneInfo, list[MethodInfo]]:
        """Ask a worker for the backbone and methods that a command names.

        Workers that join later and find other weights or methods get no runs.

        Raises:
            ConfigurationError: a name is wrong, or backbone and method do not fit.
            WorkerStartError: the worker died or hung.
        """
        if request.weights and (path := expanded(request.weights)).exists():
            request = replace(request, weights=str(path.resolve()))
        self._request = request
        self._spawn()
        (starting,) = self._starting
        match _result(starting):
            case messages.Resolved() as resolved:
                self._resolved = resolved
                return resolved.backbone, resolved.methods
            case messages.ConfigurationRefused(reason):
                raise ConfigurationError(reason)
            case messages.WorkerLost(reason):
                raise WorkerStartError(reason)

    def execute(
        self, runs: Sequence[PlannedRun], store: Store, progress: Progress, deadline: float | None = None
    ) -> SweepResult:
        """Execute runs until none is left.

        Args:
            deadline: on `time.monotonic`; no run is started that cannot end before it.

        Raises:
            ResultsNotWritable: the results folder is full or read-only.
            ConfigurationError: all workers found other weights or methods than the plan.
        """
        with Scheduler(runs, store, progress, deadline) as scheduler:
            while scheduler.waiting() or self._running:
                self._scale_up(scheduler.waiting(), progress)
                self._assign(scheduler)
                busy = {worker.name: run for worker, run in self._running.values()}
                updates = {worker.name: worker.progress for worker, _ in self._running.values()}
                progress.show({worker.name: None for worker in self._idle} | busy, updates)
                pending = [*self._running, *self._starting]
                if not pending:
                    time.sleep(TICK_SECONDS)
                    continue
                done = wait(pending, TICK_SECONDS, FIRST_COMPLETED).done
                for future in filter(done.__contains__, pending):  # in their own order, which a set does not keep
                    if future in self._starting:
                        self._register(self._starting.pop(future), _result(future), progress)
                    else:
                        self._handle_reply(*self._running.pop(future), _result(future), scheduler)
            return scheduler.result

    def stop(self) -> None:
        """Stop all workers, including those in the middle of a run."""
        workers = [*self._starting.values(), *self._idle, *(worker for worker, _ in self._running.values())]
        try:
            with ThreadPoolExecutor(len(workers) or 1) as threads:  # each may take seconds to stop
                list(threads.map(lambda worker: worker.stop(), workers))
        except RuntimeError:  # the system is out of threads
            for worker in workers:
                worker.stop()
        self._backend.close()

    def _spawn(self) -> None:
        assert self._request is not None, "resolve the plan's names first"
        self._spawned += 1
        worker = self._backend.spawn(self._spawned)
        self._starting[worker.resolve(self._request)] = worker

    def _scale_up(self, waiting: int, progress: Progress) -> None:
        """Spawn as many workers as the backend has room for and the runs need."""
        present = len(self._starting) + len(self._idle) + len(self._running)
        wanted = min(self._backend.capacity() - self._rejected, len(self._running) + waiting)
        for _ in range(wanted - present):
            self._spawn()
        if not present and wanted <= 0 and waiting:
            progress.say_once("no worker is left; waiting for the cluster to offer one (Ctrl-C stops)")

    def _assign(self, scheduler: Scheduler) -> None:
        """Give each idle worker a run, while there are runs."""
        for worker in reversed(self._idle.copy()):
            if (run := scheduler.next_run(worker.model)) is not None:
                self._idle.remove(worker)
                self._running[worker.run(run)] = worker, run

    def _register(self, worker: WorkerHandle, reply: messages.ResolveReply, progress: Progress) -> None:
        """Add a new worker to the idle ones, or stop it if it finds other weights or methods."""
        assert self._resolved is not None
        if isinstance(reply, messages.Resolved):
            if reply.agrees_with(self._resolved):
                worker.name, self._unreached = reply.worker, 0
                self._idle.append(worker)
                return
            reason = "it has other weights, method versions or plug-in files than the plan"
        else:
            reason = reply.reason
        lost_node = isinstance(reply, messages.WorkerLost) and reply.node
        self._unreached = self._unreached + 1 if lost_node else 0
        self._rejected += not lost_node or self._unreached >= STARTS
        progress.say(f"worker {reply.worker} is not used: {reason}")
        worker.stop()
        if self._rejected >= self._backend.capacity():
            raise ConfigurationError(f"no worker can be used; the last was {reply.worker}: {reason}")

    def _handle_reply(
        self, worker: WorkerHandle, run: PlannedRun, reply: messages.RunReply, scheduler: Scheduler
    ) -> None:
        if isinstance(reply, messages.WorkerLost) and reply.node:
            worker.stop()
        else:
            worker.model = model_key(run)
            self._idle.append(worker)
        match reply:
            case messages.RunFinished():
                scheduler.complete(run, reply)
            case messages.RunFailed():
                scheduler.mark_failed(run, reply)
            case messages.ResultsUnwritable(reason):
                raise ResultsNotWritable(reason)
            case messages.WorkerLost(reason):
                if not scheduler.recover_if_stored(run):
                    scheduler.requeue(run, reason)


def _result(future: "Future[Reply]") -> "Reply | messages.WorkerLost":
    """Return a worker's reply, or the loss of its node, for which each backend has its own exceptions."""
    try:
        return future.result()
    except Exception as error:
        return messages.WorkerLost(f"the worker cannot be reached ({type(error).__name__})", node=True)
