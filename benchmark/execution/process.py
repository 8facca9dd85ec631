"""A worker's process, which ends together with every process that it started."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import uuid
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import ModuleType

MARK = "VTAB_PEFT_WORKER"
"""Environment variable that all descendants of a worker inherit, also those that leave its session."""

KILL_ROUNDS = 5
"""Looks at the process table: a process may fork between a look and its end (ours)."""

_starting = threading.Lock()


class WorkerProcess(SpawnProcess):
    """A spawned process; `kill` ends its descendants too.

    It does not import the main module of its parent, which it does not need.  So scripts without
    `if __name__ == "__main__"` may start workers.
    """

    def start(self) -> None:
        self._mark = uuid.uuid4().hex
        resource_tracker.ensure_running()  # outlives the worker, so it must not inherit the mark
        with _starting:
            os.environ[MARK] = self._mark
            main = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")  # where multiprocessing looks up what to import
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main
                del os.environ[MARK]

    def kill(self) -> None:
        if self.pid is not None:
            kill_family(self.pid, self._mark)


@atexit.register  # after multiprocessing's own handler, hence called before it: that one waits for its children
def _kill_all() -> None:
    """Kill the workers that nobody stopped, when this process ends by an exception."""
    for process in multiprocessing.active_children():
        if isinstance(process, WorkerProcess):
            process.kill()


def kill_family(session: int, mark: str) -> None:
    """Kill all processes with this session or mark; the calling process is the last, if it is one of them.

    A process escapes only if it left the session and cleared its environment.  Without /proc, the mark has no effect.
    """
    for _ in range(KILL_ROUNDS):
        others = _members(session, f"{MARK}={mark}".encode())
        for process in others:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if not others:
            break
    with suppress(OSError):
        os.killpg(session, signal.SIGKILL)


def _members(session: int, mark: bytes) -> list[int]:
    """Return the other living processes of the session, or with the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended, or belongs to another user
            state, _, _, its_session = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:4]
            if state in b"ZX" or int(folder.name) == os.getpid():
                continue
            if int(its_session) == session or mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found
