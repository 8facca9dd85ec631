"""Local workers: processes spawned on this machine, each supervised by a thread of the parent."""

import multiprocessing
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ...datasets.cache import CachedTask, build, cached, default_root
from ...datasets.few_shots import drawn_for, split_suite
from ...datasets.task import DataError
from ..plan import PlannedRun
from .messages import ProgressUpdate, ResolveReply, ResolveRequest, RunFailed, RunReply, WorkerConfig, WorkerLost
from .pool import WorkerPool
from .process import WorkerProcess
from .scheduler import ModelKey
from .worker import serve

START_TIMEOUT_S = 300.0
"""Longest time to import torch and read a backbone, without downloads (ours; network file systems are slow)."""

SHUTDOWN_TIMEOUT_S = 5.0
"""Time for an idle worker to exit by itself, with the compiler processes it started, before SIGKILL (ours)."""

LIVENESS_CHECK_S = 1.0
"""Time between two looks at a silent process: children that it forked keep its pipe open when it dies (ours)."""

HANG_TIMEOUT_S = 600.0
HANG_TIMEOUT_FACTOR = 5.0
"""A worker hangs when it sent nothing for both this time and this multiple of its run's estimate (ours)."""


class SupervisedWorker:
    """One worker process and its supervisor, which run on the same machine.

    Call one method at a time; `kill` may be called from another thread.
    """

    def __init__(self, number: int, config: WorkerConfig) -> None:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        self.name = "/".join([platform.node(), *([f"gpu{gpus}"] if gpus else []), str(number)])
        self.progress: ProgressUpdate | None = None
        """Latest update of the current request."""
        self._config = replace(config, number=number)
        self._lost = self._killed = False
        self._has_plugins = bool(config.plugins)
        self._start()

    def resolve(self, request: ResolveRequest) -> ResolveReply:
        return replace(self._ask(request, START_TIMEOUT_S), worker=self.name)

    def run(self, run: PlannedRun) -> RunReply:
        """Execute a run, in a new process if the last one was lost.

        Methods of the suite get a process without plug-in files, whose side effects could change their results,
        unless a plug-in defines the backbone.
        """
        try:
            run = replace(run, data=_local_data(run.data))
        except DataError as error:
            return RunFailed(f"{type(error).__name__}: {error}", type(error).__name__)
        plugged = run.spec.method.plugin is not None or run.plugged_backbone
        needs_plugins = bool(self._config.plugins) and plugged
        if self._lost or needs_plugins != self._has_plugins:
            self.stop()
            self._has_plugins = needs_plugins
            self._start()
        reply = self._ask(run, max(HANG_TIMEOUT_S, HANG_TIMEOUT_FACTOR * run.seconds))
        self._lost = isinstance(reply, WorkerLost)
        return reply

    def kill(self) -> None:
        """End a busy process at once and start no other; its run is lost."""
        self._killed = True
        if self._busy:
            self.process.kill()

    def stop(self) -> None:
        self._pipe.close()  # an idle worker exits when its pipe closes
        if not self._busy:
            self.process.join(SHUTDOWN_TIMEOUT_S)
        self.process.kill()
        self.process.join()

    def _start(self) -> None:
        self._pipe, remote = multiprocessing.Pipe()
        self._busy = False
        config = self._config if self._has_plugins else replace(self._config, plugins=())
        self.process = WorkerProcess(target=serve, args=(remote, config), daemon=True)
        self.process.start()
        remote.close()

    def _ask(self, request: ResolveRequest | PlannedRun, timeout: float) -> Any:
        """Return the reply, or `WorkerLost` after `timeout` seconds without a message or a download."""
        self._busy, self.progress, limit = True, None, timeout
        if self._killed:
            return WorkerLost("the worker was stopped")
        try:
            self._pipe.send(request)
            while self._wait_for_message(limit):
                message = self._pipe.recv()
                if not isinstance(message, ProgressUpdate):
                    self._busy = False
                    return message
                self.progress, limit = message, timeout
                if isinstance(request, ResolveRequest) and message.done < message.total:
                    print(message.phase, file=sys.stderr, flush=True)
                    limit = None
        except (EOFError, OSError):
            reason = self._exit_reason()
        else:
            reason = f"the worker sent nothing for {timeout:.0f} s and was stopped"
        self.process.kill()
        return WorkerLost(reason)

    def _wait_for_message(self, timeout: float | None) -> bool:
        """Return True once a message is there, and False after `timeout` seconds.  Raises `EOFError` on its death."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while not self._pipe.poll(max(min(LIVENESS_CHECK_S, end - time.monotonic()), 0)):
            if not self.process.is_alive() and not self._pipe.poll():
                raise EOFError
            if time.monotonic() >= end:
                return False
        return True

    def _exit_reason(self) -> str:
        self.process.join(timeout=10)
        code = self.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"exited with code {code}"
        return f"the worker {how}"


def _local_data(data: CachedTask) -> CachedTask:
    """Return the same data from this machine's cache, decoded now if necessary.

    Raises:
        DataError: the images here differ from those of the plan.
    """
    if all(file.exists() for files in data.files.values() for file in files):
        return data
    root, suite = default_root(), data.task.suite
    task = replace(data.task, suite=split_suite(suite)[0])
    found = drawn_for(suite, cached(task, data.preprocessing, root) or build(task, data.preprocessing, root))
    if found.data != data.data:
        raise DataError(f"{data.task.label} on {platform.node()} differs from the data of the plan; copy its folder")
    return found


class LocalWorker:
    """Handle of a supervised worker of this machine; its supervisor is a thread."""

    name = ""
    model: ModelKey | None = None

    def __init__(self, number: int, config: WorkerConfig) -> None:
        self._worker = SupervisedWorker(number, config)
        self._thread = ThreadPoolExecutor(1)

    @property
    def progress(self) -> ProgressUpdate | None:
        return self._worker.progress

    def resolve(self, request: ResolveRequest) -> "Future[ResolveReply]":
        return self._thread.submit(self._worker.resolve, request)

    def run(self, run: PlannedRun) -> "Future[RunReply]":
        return self._thread.submit(self._worker.run, run)

    def stop(self) -> None:
        self._worker.kill()  # so that the thread returns
        self._thread.shutdown(cancel_futures=True)
        self._worker.stop()


class LocalBackend:
    """Backend with a fixed number of workers on this machine; they take its visible GPUs in turn."""

    def __init__(self, workers: int, config: WorkerConfig) -> None:
        self._workers, self._config = workers, config

    def capacity(self) -> int:
        return self._workers

    def spawn(self, number: int) -> LocalWorker:
        return LocalWorker(number, self._config)

    def close(self) -> None:
        pass


def visible_gpus() -> int:
    """Return the number of NVIDIA GPUs that torch may use here; torch itself is not imported in this process."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([name for name in chosen.split(",") if name.strip() not in ("", "-1")])
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def local_pool(config: WorkerConfig, workers: int = 1) -> WorkerPool:
    """Create a pool of workers on this machine."""
    return WorkerPool(LocalBackend(workers, replace(config, concurrent_runs=workers)))
