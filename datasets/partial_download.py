"""An incomplete download that a later attempt can resume.

`<name>.part` holds the bytes so far, and `<name>.part.json` the version of the server's file that they belong to.  The
lock is on `<name>.part` itself, so that no lock file stays behind when the download is renamed.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .reading import read_json
from .task import DataError


@dataclass(frozen=True)
class FileVersion:
    """Response headers that distinguish the versions of a file at a URL."""

    url: str
    etag: str | None
    modified: str | None
    length: int | None


class PartialDownload:
    """The bytes received so far and the version they belong to."""

    def __init__(self, path: Path, url: str, file: int) -> None:
        self.target = path
        self.url = url
        self.file = file
        self.path = _with_suffix(path, ".part")
        self.record = _with_suffix(path, ".part.json")

    def size(self) -> int:
        return os.fstat(self.file).st_size

    def version(self) -> FileVersion | None:
        """Return the version of the bytes, or None if there are no bytes or their version is not known."""
        try:
            version = read_json(self.record, FileVersion)
        except DataError:
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
        self.path.replace(self.target)
        self.record.unlink(missing_ok=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)


@contextlib.contextmanager
def open_partial(path: Path, url: str) -> Iterator[PartialDownload]:
    """Yield the locked partial download of `path`; disk errors become `DataError`s."""
    name, received = _with_suffix(path, ".part"), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if not _lock(file, name):
                raise DataError(f"another process is downloading {path}; wait until it has finished")
            part = PartialDownload(path, url, file)
            try:
                yield part
            finally:
                received = part.size()
                if not received:
                    part.remove()
        finally:
            os.close(file)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"cannot write {path}: {error.strerror}; choose a writable folder") from None
        raise DataError(
            f"no space left for {path} after {received:,} bytes of {url}; free some space and start again to resume"
        ) from None


def _lock(file: int, name: Path) -> bool:
    """Lock `file`; return False if another process holds the lock or has just renamed the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return name.exists() and os.path.samestat(os.fstat(file), name.stat())


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
