"""Locks of runs, so that several commands can share one results folder.

    results/claims/<run ID>.json     the run's name (field `cell`), and the host and process that execute it

The holder touches the file while it lives.  Folder and fields keep their old names for commands of older versions.
A lock only saves work: if two commands execute one run all the same, the store keeps the first result.
Not `filelock`: one process must watch its lease for the full duration before it may take over an abandoned one, so a
`run` that tries once and `status` cannot tell which locks are abandoned, and older versions cannot read its marker.
"""

import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from ...datasets.atomic_io import PREFIX, create, host, is_alive, temporary_name
from ...datasets.reading import InvalidFile, naming, read_regular
from ...datasets.schema import from_json
from ..storage.json_io import to_text, unwritable

HEARTBEAT_SECONDS = 20.0
EXPIRES_SECONDS = 180.0
"""Age of the last touch after which a lock is abandoned: nine heartbeats (ours; network file systems may stall)."""
LARGEST_LOCK = 1 << 16
"""Bytes of the largest lock that is read (ours)."""
CREATE_TRIES = 9
"""Tries to create a lock while other commands remove the empty folder (ours)."""


class RunLock(msgspec.Struct, frozen=True, rename={"run": "cell"}):
    """Content of a lock file."""

    run: str
    host: str
    """Machine and PID namespace, see `datasets/atomic_io.py`."""
    process: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    started: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    """Seconds since 1970, by the clock of `host`."""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    def to_json(self) -> bytes:
        """Return the text of the file, which passes its own schema."""
        data = to_text(msgspec.to_builtins(self)).encode()
        from_json(data, RunLock)
        return data


class RunLocks:
    """The locks that this process holds in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, bytes] = {}
        self._closed = threading.Event()

    def acquire(self, run_id: str, run: str) -> bool:
        """Lock a run; return False if another process holds the lock.

        Raises:
            StoreError: the results folder cannot be written.
        """
        content = RunLock(run, host(), os.getpid(), time.time()).to_json()
        try:
            acquired = self._create(run_id, content) or (
                self._remove_abandoned(run_id) and self._create(run_id, content)
            )
        except OSError as error:
            raise unwritable(self._path(run_id), error) from None
        if acquired:
            if not self._held:
                threading.Thread(target=self._heartbeat, args=(self._closed,), daemon=True).start()
            self._held[run_id] = content
        return acquired

    def release(self, run_id: str) -> None:
        """Release a lock, unless another process took it over meanwhile."""
        content = self._held.pop(run_id)
        with suppress(OSError, InvalidFile):
            if read_regular(self._path(run_id), LARGEST_LOCK) == content:
                self._path(run_id).unlink()
        if not self._held:
            self._closed.set()
            self._closed = threading.Event()

    def close(self) -> None:
        """Release all locks, and remove abandoned ones, whose runs may be stored so that nobody acquires them."""
        for run_id in list(self._held):
            self.release(run_id)
        with suppress(OSError):
            for path in self.folder.glob("*.json"):
                self._remove_abandoned(path.stem)
            self.folder.rmdir()  # fails if another process holds a lock

    def holder(self, run_id: str) -> RunLock | None:
        """Return the lock of a run; None if there is none or it is damaged."""
        return _valid(self._path(run_id))

    def _path(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.json"

    def _create(self, run_id: str, content: bytes) -> bool:
        """Create a lock file with its content in one step, so that no unreadable lock is left by a crash."""
        for _ in range(CREATE_TRIES):
            with suppress(FileNotFoundError):  # another command has just removed the empty folder
                return create(self._path(run_id), content)
        return create(self._path(run_id), content)

    def _remove_abandoned(self, run_id: str) -> bool:
        """Remove a lock if it is abandoned, and return True if there is none any more.

        It is renamed before a second check: of several processes that try, only one gets it.
        """
        path, aside = self._path(run_id), self.folder / temporary_name()
        try:
            if not is_abandoned(path, _file_system_time(self.folder)):
                return not path.exists()
            path.rename(aside)
        except FileNotFoundError:  # the lock or the whole folder
            return True
        if not is_abandoned(aside, _file_system_time(self.folder)):  # a new lock of a faster process: put it back
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
        return not path.exists()

    def _heartbeat(self, closed: threading.Event) -> None:
        while not closed.wait(HEARTBEAT_SECONDS):
            for run_id in list(self._held):
                with suppress(OSError):
                    os.utime(self._path(run_id))


def is_abandoned(path: Path, now: float) -> bool:
    """Return True if the lock expired, or its process on this machine is dead."""
    try:
        age = abs(now - path.stat().st_mtime)  # a time in the future means that a clock was set back
    except FileNotFoundError:
        return False
    lock = _valid(path)
    return age > EXPIRES_SECONDS or (lock is not None and lock.host == host() and not is_alive(lock.process))


def list_locks(folder: Path) -> tuple[list[tuple[str, RunLock, bool]], list[str]]:
    """Return (run ID, lock, abandoned or not) for every lock in a folder, and a message for each damaged one."""
    found: list[tuple[str, RunLock, bool]] = []
    problems: list[str] = []
    if not (paths := sorted(folder.glob("*.json"))):
        return found, problems
    try:
        now = _file_system_time(folder)
    except OSError:  # a read-only folder
        now = time.time()
    for path in paths:
        try:
            found.append((path.stem, _read(path), is_abandoned(path, now)))
        except FileNotFoundError:  # just released
            continue
        except (InvalidFile, OSError) as error:
            problems.append(f"{error}; no lock is read there: delete the file")
    return found, problems


def _file_system_time(folder: Path) -> float:
    """Return the time by the file system's clock, which also stamps the locks."""
    with tempfile.TemporaryFile(prefix=PREFIX, dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


def _read(path: Path) -> RunLock:
    """Return the lock in a file.  Raises `OSError`, or `InvalidFile` if it is damaged."""
    with naming(path):
        return from_json(read_regular(path, LARGEST_LOCK), RunLock)


def _valid(path: Path) -> RunLock | None:
    """Return the lock, or None if there is none or it is damaged."""
    try:
        return _read(path)
    except (OSError, InvalidFile):
        return None
