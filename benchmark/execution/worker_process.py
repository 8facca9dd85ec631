"""Executors run a sweep's cells.  The local one: a parent without torch, one spawned worker, and a pipe between them.

The parent watches: a worker that dies (segmentation fault, out of memory, kill -9) or stays silent too long
costs one cell; it is recorded, a new worker is started, the sweep goes on.
"""

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..engine.numerics import Numerics
from ..plan import BackboneInfo, MethodInfo, PlannedRun
from ..storage.store import Store
from .progress import Progress
from .scheduler import Scheduler, SweepResult
from .worker import ResolveRequest, serve

START_TIMEOUT_S = 300.0
"""Longest a worker may take to import torch and read a backbone (ours; network file systems are slow).  A download in
between has no limit but those of the hub's client: it takes what the weights and the network are like."""

SHUTDOWN_TIMEOUT_S = 5.0
"""Given to an idle worker to end by itself (ours), and with it processes that compiled for it."""

HANG_TIMEOUT_S = 600.0
HANG_TIMEOUT_FACTOR = 5.0
"""A worker is taken for hung when it was silent for this many seconds and this many estimates of its cell (ours)."""


class ConfigurationError(Exception):
    """The worker cannot do what the command asks; the message is for the user."""


class WorkerLost(Exception):
    """The worker died or hung."""


Description = tuple[BackboneInfo, list[MethodInfo]]


class Executor(Protocol):
    """Whatever runs cells."""

    def describe(self, request: ResolveRequest) -> Description:
        """What names mean, where the cells will be run.  Raises `ConfigurationError`, `WorkerLost`."""
        ...

    def execute(
        self, cells: Sequence[PlannedRun], store: Store, progress: Progress, deadline: float | None = None
    ) -> SweepResult:
        """Run the cells; see `execute` below."""
        ...

    def stop(self) -> None: ...


class WorkerProcess:
    """One spawned worker and the pipe to it.

    argv: the command that its results name as their origin; None: this process's.
    """

    def __init__(
        self, results: Path, numerics: Numerics, plugins: Sequence[Path] = (), argv: list[str] | None = None
    ) -> None:
        self._arguments = (results, numerics, argv or command(), plugins)
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.busy = False
        self.process = context.Process(target=serve, args=(theirs, *self._arguments), daemon=True)
        self.process.start()
        theirs.close()

    def describe(self, request: ResolveRequest) -> Description:
        """Raises `ConfigurationError`, `WorkerLost`."""
        self._send(request)
        kind, answer = self._receive(START_TIMEOUT_S)
        while kind == "progress":
            what, done, of = answer
            if done < of:
                print(what, file=sys.stderr, flush=True)
            kind, answer = self._receive(None if done < of else START_TIMEOUT_S)
        if kind == "refused":
            raise ConfigurationError(answer)
        return answer

    def run(self, cell: PlannedRun, on_progress: Callable[[str, int, int], None]) -> tuple[str, Any]:
        """("finished", RunSummary), ("failed", reason) or ("unwritable", reason).  Raises `WorkerLost`."""
        self._send(cell)
        patience = max(HANG_TIMEOUT_S, HANG_TIMEOUT_FACTOR * cell.seconds)
        while True:
            kind, answer = self._receive(patience)
            if kind != "progress":
                return kind, answer
            on_progress(*answer)

    def execute(
        self, cells: Sequence[PlannedRun], store: Store, progress: Progress, deadline: float | None = None
    ) -> SweepResult:
        return execute(cells, self, store, progress, deadline)

    def restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self._pipe.close()  # which tells a worker that waits for a request to end
        if not self.busy:
            self.process.join(SHUTDOWN_TIMEOUT_S)
        self.process.kill()
        self.process.join()

    def _send(self, request: object) -> None:
        self.busy = True
        try:
            self._pipe.send(request)
        except OSError:
            raise WorkerLost(self._epitaph()) from None

    def _receive(self, seconds: float | None) -> tuple[str, Any]:
        """seconds: without a limit if None."""
        try:
            if self._pipe.poll(seconds):
                kind, answer = self._pipe.recv()
                self.busy = kind == "progress"
                return kind, answer
        except (EOFError, OSError):
            raise WorkerLost(self._epitaph()) from None
        raise WorkerLost(f"the worker was silent for {seconds:.0f} s and was stopped")

    def _epitaph(self) -> str:
        self.process.join(timeout=10)
        code = self.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"exited with code {code}"
        return f"the worker {how}"


def command() -> list[str]:
    """What was typed."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def execute(
    cells: Sequence[PlannedRun], worker: WorkerProcess, store: Store, progress: Progress, deadline: float | None = None
) -> SweepResult:
    """Run the cells one by one.  deadline: on `time.monotonic`; no cell is started that cannot end before it.

    Raises:
        ResultsNotWritable: the results folder is full or read-only.
        KeyboardInterrupt: Ctrl-C; the cell in flight is given up, everything stored stays.
    """
    with Scheduler(cells, store, progress, deadline) as agenda:
        while (cell := agenda.take()) is not None:
            progress.started(cell)
            try:
                agenda.settle(cell, *worker.run(cell, progress.advanced))
            except WorkerLost as lost:
                if not agenda.rescue(cell):
                    agenda.give_up(cell, str(lost))
                worker.restart()
        return agenda.tally
