"""A worker process with its guardian, on whatever machine it works: what several workers are made of."""

import os
import platform
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ...datasets.cache import CachedTask, build, cached, default_root
from ...datasets.task import DataError
from ..engine.numerics import Numerics
from ..plan import PlannedRun
from ..storage.store import Store
from .worker import ResolveRequest
from .worker_process import ConfigurationError, WorkerLost, WorkerProcess

Answer = tuple[str, Any]


class WorkerHandle(Protocol):
    """A station, reached from here."""

    def describe(self, request: ResolveRequest) -> "Future[Answer]": ...

    def run(self, cell: PlannedRun) -> "Future[Answer]": ...

    def stop(self) -> None: ...


class PoolBackend(Protocol):
    """Where members come from."""

    def room(self) -> int:
        """How many there can be now, those that there are included."""
        ...

    def hire(self, number: int) -> WorkerHandle: ...

    def close(self) -> None: ...


class SupervisedWorker:
    """One worker process and its guardian, on the machine where it works.  Its methods run there, one at a time."""

    def __init__(
        self, number: int, results: Path, numerics: Numerics, plugins: Sequence[Path], argv: list[str]
    ) -> None:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        self.place = "/".join([platform.node(), *([f"gpu{gpus}"] if gpus else []), str(number)])
        self.results = results
        self.worker = WorkerProcess(results, numerics, plugins, argv)
        self._lost = False

    def describe(self, request: ResolveRequest) -> Answer:
        """("described", (place, Description)) or ("refused", reason)"""
        try:
            return "described", (self.place, self.worker.describe(request))
        except (ConfigurationError, WorkerLost) as error:
            return "refused", f"{self.place}: {error}"

    def run(self, cell: PlannedRun) -> Answer:
        """What the worker answers, or ("lost", reason)."""
        try:
            if self._lost:
                self.worker.restart()
            self._lost = False
            return self.worker.run(replace(cell, data=_at_hand(cell.data)), lambda *_: None)
        except WorkerLost as error:
            self._lost = True
            return "lost", str(error)
        except DataError as error:
            reason = f"{type(error).__name__}: {error}"
            Store(self.results).put_failure(cell.spec, reason, "")
            return "failed", reason

    def stop(self) -> None:
        self.worker.stop()


def _at_hand(data: CachedTask) -> CachedTask:
    """The same data on this machine, decoded now if it lies in another machine's cache.  Raises `DataError`."""
    if all(file.exists() for files in data.files.values() for file in files):
        return data
    root = default_root()
    found = cached(data.task, data.preprocessing, root) or build(data.task, data.preprocessing, root)
    if found.data != data.data:
        raise DataError(f"{data.task.label} on {platform.node()} is not the same data as where the plan was made")
    return found


class LocalWorker:
    """A station in a thread of this process."""

    def __init__(self, station: SupervisedWorker) -> None:
        self._station = station
        self._thread = ThreadPoolExecutor(1)

    def describe(self, request: ResolveRequest) -> "Future[Answer]":
        return self._thread.submit(self._station.describe, request)

    def run(self, cell: PlannedRun) -> "Future[Answer]":
        return self._thread.submit(self._station.run, cell)

    def stop(self) -> None:
        if self._station.worker.busy:
            self._station.worker.process.kill()  # its thread wakes up and ends
        self._thread.shutdown(cancel_futures=True)
        self._station.stop()


WorkerConfig = tuple[Path, Numerics, Sequence[Path], list[str]]
"""What a station is given beside its number."""


class LocalBackend:
    """`workers` processes on this machine; with one GPU they share it."""

    def __init__(self, workers: int, station: WorkerConfig) -> None:
        self._workers, self._station = workers, station

    def room(self) -> int:
        return self._workers

    def hire(self, number: int) -> WorkerHandle:
        return LocalWorker(SupervisedWorker(number, *self._station))

    def close(self) -> None:
        pass
