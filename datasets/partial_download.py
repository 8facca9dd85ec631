"""A download that is not whole yet.

Its bytes lie in `<name>.part`, and in `<name>.part.json` which version of the server's file they are of, so that an
attempt weeks later can go on from there.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .task import DataError


@dataclass(frozen=True)
class FileVersion:
    """What tells one version of a file at an address from another."""

    url: str
    etag: str | None
    modified: str | None
    length: int | None


class PartialDownload:
    """The bytes that are there, and the version they are of."""

    def __init__(self, path: Path, url: str, file: int) -> None:
        self.whole = path
        self.url = url
        self.file = file
        self.path = _with(path, ".part")
        self.record = _with(path, ".part.json")

    def size(self) -> int:
        return os.fstat(self.file).st_size

    def version(self) -> FileVersion | None:
        """That of the bytes; None where there are none, or they are of unknown descent."""
        try:
            version = FileVersion(**json.loads(self.record.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        known = (version.etag, version.modified, version.length) != (None, None, None)
        return version if self.size() and known and version.url == self.url else None

    def clear(self) -> None:
        os.ftruncate(self.file, 0)

    def restart(self, version: FileVersion) -> None:
        self.clear()
        self.record.write_text(json.dumps(asdict(version)))

    def append(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self.file, rest) :]

    def finish(self) -> None:
        os.fsync(self.file)
        self.path.replace(self.whole)
        self.record.unlink(missing_ok=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)


@contextlib.contextmanager
def open_partial(path: Path, url: str) -> Iterator[PartialDownload]:
    """The part of `path`, open and locked; whatever the disk objects to becomes a `DataError`."""
    name, came = _with(path, ".part"), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if not _locked(file, name):
                raise DataError(f"another process is downloading {path}; wait until it has ended")
            part = PartialDownload(path, url, file)
            try:
                yield part
            finally:
                came = part.size()
                if not came:
                    part.remove()
        finally:
            os.close(file)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from None
        advice = "make room and start again: it goes on from there"
        raise DataError(f"no space left for {path} after {came:,} bytes of {url}; {advice}") from None


def _locked(file: int, name: Path) -> bool:
    """Whether nobody else writes to `file`, and it still has its name: who had the lock may have just finished."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return name.exists() and os.path.samestat(os.fstat(file), name.stat())


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
