"""Who runs which cell now, so that several commands can share one results folder.

    results/claims/<key>.json     the cell's name and the host and process that run it; touched while they live

The host is that of `datasets/atomic.py`: processes of two containers are as those of two machines.

A claim saves work and guards nothing: should two commands run one cell all the same (a clock that jumped, a process
that was suspended), the store keeps the first of the two results.
"""

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ...datasets.atomic_io import PREFIX, create, host, is_alive, temporary_name
from ..storage.json_io import unwritable

BEAT_SECONDS = 20.0
EXPIRES_SECONDS = 180.0
"""A claim not touched for so long belongs to nobody; nine beats (ours: a network file system may stall for minutes)."""
TRIES = 9
"""At a folder that others remove in between (ours)."""


@dataclass(frozen=True)
class Claim:
    """What a claim says."""

    cell: str
    host: str
    process: int
    started: float
    """Seconds since 1970, by the clock of `host`."""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Claims:
    """The claims of this process in one results folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, bytes] = {}
        self._closed = threading.Event()

    def take(self, key: str, cell: str) -> bool:
        """Claim a cell; False while somebody else has it.

        Raises:
            StoreError: the results folder cannot be written.
        """
        claim = Claim(cell, host(), os.getpid(), time.time())
        text = json.dumps(asdict(claim)).encode()
        try:
            mine = self._create(key, text) or (self._remove_abandoned(key) and self._create(key, text))
        except OSError as error:
            raise unwritable(self._path(key), error) from None
        if mine:
            if not self._held:
                threading.Thread(target=self._beat, args=(self._closed,), daemon=True).start()
            self._held[key] = text
        return mine

    def release(self, key: str) -> None:
        """Give a cell back; a claim that somebody took over meanwhile stays."""
        text = self._held.pop(key)
        with suppress(OSError):
            if self._path(key).read_bytes() == text:
                self._path(key).unlink()
        if not self._held:
            self._closed.set()
            self._closed = threading.Event()

    def close(self) -> None:
        """Give everything back, and remove what nobody stands behind: its cell may have been stored all the same."""
        for key in list(self._held):
            self.release(key)
        with suppress(OSError):
            for path in self.folder.glob("*.json"):
                self._remove_abandoned(path.stem)
            self.folder.rmdir()  # if nobody else claims anything

    def holder(self, key: str) -> Claim | None:
        return read(self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _create(self, key: str, text: bytes) -> bool:
        """It appears with its content: who dies while writing it leaves no claim that nobody can judge."""
        for _ in range(TRIES):
            with suppress(FileNotFoundError):  # whoever released the last claim has just removed the folder
                return create(self._path(key), text)
        return create(self._path(key), text)  # or no folder can be made there at all

    def _remove_abandoned(self, key: str) -> bool:
        """Whether the claim is gone.  It is moved before it is judged again: of many who try, one gets it."""
        path, aside = self._path(key), self.folder / temporary_name()
        try:
            if not is_abandoned(path, _now(self.folder)):
                return not path.exists()
            path.rename(aside)
        except FileNotFoundError:  # with its folder, maybe
            return True
        if not is_abandoned(aside, _now(self.folder)):  # somebody was faster, and this is his new claim
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
        return not path.exists()

    def _beat(self, closed: threading.Event) -> None:
        while not closed.wait(BEAT_SECONDS):
            for key in list(self._held):
                with suppress(OSError):
                    os.utime(self._path(key))


def is_abandoned(path: Path, now: float) -> bool:
    """Whether nobody stands behind a claim any more."""
    try:
        age = abs(now - path.stat().st_mtime)  # a claim from the future is one from before a clock was set back
    except FileNotFoundError:
        return False
    claim = read(path)
    return age > EXPIRES_SECONDS or (claim is not None and claim.host == host() and not is_alive(claim.process))


def _now(folder: Path) -> float:
    """By the clock of the file system, which stamps the claims.  A file without a name tells it, so nothing changes."""
    with tempfile.TemporaryFile(prefix=PREFIX, dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


def read(path: Path) -> Claim | None:
    """None where there is no claim, or one that cannot be read (yet)."""
    try:
        return Claim(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def current(folder: Path) -> Iterator[tuple[str, Claim, bool]]:
    """(key, claim, whether it is abandoned) of all claims in a results folder."""
    if not (paths := sorted(folder.glob("*.json"))):
        return
    try:
        now = _now(folder)
    except OSError:  # somebody else's folder, where we may only look
        now = time.time()
    for path in paths:
        if (claim := read(path)) is not None:
            yield path.stem, claim, is_abandoned(path, now)
