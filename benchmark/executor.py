"""The local executor: a parent without torch and one spawned worker that takes cells over a pipe.

The parent watches: a worker that dies (segmentation fault, out of memory, kill -9) or stays silent too long
costs one cell; it is recorded, a new worker is started, the sweep goes on.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .numerics import Numerics
from .plan import BackboneInfo, Cell, MethodInfo
from .progress import Progress
from .store import Store
from .worker import Describe, Summary, serve

START_SECONDS = 300.0
"""Longest a worker may take to import torch and read a backbone (ours; network file systems are slow)."""

SILENCE_SECONDS = 600.0
SILENCE_FACTOR = 5.0
"""A worker is taken for hung when it was silent for this many seconds and this many estimates of its cell (ours)."""


class Refused(Exception):
    """The worker cannot do what the command asks; the message is for the user."""


class WorkerLost(Exception):
    """The worker died or hung."""


class WorkerProcess:
    """One spawned worker and the pipe to it."""

    def __init__(self, results: Path, numerics: Numerics, plugins: Sequence[Path] = ()) -> None:
        argv = [Path(sys.argv[0]).name, *sys.argv[1:]]
        self._arguments = (results, numerics, argv, plugins)
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *self._arguments), daemon=True)
        self.process.start()
        theirs.close()

    def describe(self, request: Describe) -> tuple[BackboneInfo, list[MethodInfo]]:
        """Raises `Refused`, `WorkerLost`."""
        self._send(request)
        kind, answer = self._receive(START_SECONDS)
        if kind == "refused":
            raise Refused(answer)
        return answer

    def run(self, cell: Cell, on_progress: Callable[[str, int, int], None]) -> tuple[str, Any]:
        """("finished", Summary), ("failed", reason) or ("unwritable", reason).  Raises `WorkerLost`."""
        self._send(cell)
        patience = max(SILENCE_SECONDS, SILENCE_FACTOR * cell.seconds)
        while True:
            kind, answer = self._receive(patience)
            if kind != "progress":
                return kind, answer
            on_progress(*answer)

    def restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self._pipe.close()
        self.process.kill()
        self.process.join()

    def _send(self, request: object) -> None:
        try:
            self._pipe.send(request)
        except OSError:
            raise WorkerLost(self._epitaph()) from None

    def _receive(self, seconds: float) -> tuple[str, Any]:
        try:
            if self._pipe.poll(seconds):
                return self._pipe.recv()
        except (EOFError, OSError):
            raise WorkerLost(self._epitaph()) from None
        raise WorkerLost(f"the worker was silent for {seconds:.0f} s and was stopped")

    def _epitaph(self) -> str:
        self.process.join(timeout=10)
        code = self.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"exited with code {code}"
        return f"the worker {how}"


@dataclass
class Tally:
    """What became of a sweep."""

    finished: int = 0
    failed: list[tuple[Cell, str]] = field(default_factory=list)
    left: int = 0
    """Cells not started for lack of time."""


class Unwritable(Exception):
    """Results cannot be stored; going on would lose work."""


def execute(
    cells: Iterable[Cell], worker: WorkerProcess, store: Store, progress: Progress, deadline: float | None = None
) -> Tally:
    """Run the cells one by one.  deadline: on `time.monotonic`; no cell is started that cannot end before it.

    Raises:
        Unwritable: the results folder is full or read-only.
        KeyboardInterrupt: Ctrl-C; the cell in flight is given up, everything stored stays.
    """
    tally, pace = Tally(), Pace()
    for cell in cells:
        if deadline is not None and time.monotonic() + pace.expected(cell) > deadline:
            tally.left += 1
            progress.skipped(cell)
            continue
        progress.started(cell)
        started = time.monotonic()
        try:
            kind, answer = worker.run(cell, progress.advanced)
        except WorkerLost as lost:
            kind, answer = "failed", str(lost)
            store.put_failure(cell.spec, str(lost), "")
            worker.restart()
        if kind == "unwritable":
            raise Unwritable(answer)
        if isinstance(answer, Summary):
            pace.observe(cell, time.monotonic() - started)
            tally.finished += 1
            progress.finished(cell, answer)
        else:
            tally.failed.append((cell, answer))
            progress.failed(cell, answer)
    return tally


@dataclass
class Pace:
    """How real time compares with the estimates, learned as cells finish."""

    real: float = 0.0
    estimated: float = 0.0

    def observe(self, cell: Cell, seconds: float) -> None:
        self.real += seconds
        self.estimated += cell.seconds

    def expected(self, cell: Cell) -> float:
        return cell.seconds * (self.real / self.estimated if self.estimated else 1.0)
