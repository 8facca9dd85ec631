"""Extract zip, tar and gzip archives from untrusted sources.

`zipfile` and `tarfile` with its `data` filter write the files.  This module adds what they lack: it refuses paths that
leave the folder, bounds the extracted size, and creates no links.  A link to a file of the same archive becomes a copy.
"""

import bz2
import errno
import fcntl
import gzip
import io
import lzma
import posixpath
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .reading import open_regular
from .task import DataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".gz")
GROWTH = 20
"""Largest ratio of extracted to archive size (our choice); the images of smallnorb, the densest here, grow 3.4-fold."""
FLOOR = 1 << 30
"""Bytes that any archive may extract to (our choice): small lists of labels compress several hundredfold."""
ENTRY = 512
"""Bytes that an entry counts beside its content (a tar header), so that empty files are bounded as well."""
CHUNK = 1 << 20
HEADERS = 1 << 20
"""Bytes of headers that a tar archive may have before one entry (our choice); `tarfile` reads them into memory."""
PACKERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""Readers of compressed tar archives by their first bytes."""

DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, ValueError, OverflowError, struct.error),
    IndexError,  # zipfile: an entry without a name
)
"""Exceptions of the standard library's readers on damaged bytes."""


@dataclass(frozen=True)
class _Entry:
    name: str
    kind: str
    """`file`, `folder`, `link` or `other`."""
    size: int
    """Size of the content in bytes; the readers never return more."""
    target: str
    """Target of a link, relative to the archive's root."""
    write: Callable[[str], object]
    """Write a file to a path relative to the folder."""


@dataclass
class _Budget:
    """Counts extracted bytes and raises `DataError` above a limit."""

    archive: Path
    limit: int
    progress: Callable[[int], None]
    written: int = 0

    def spend(self, size: int) -> None:
        self.written += size
        if self.written > self.limit:
            raise _refusal(self.archive, f"it extracts to more than {self.limit:,} bytes")
        self.progress(self.written)


def is_archive(name: str) -> bool:
    """Return True if the file name has the suffix of a known archive format."""
    return name.lower().endswith(SUFFIXES)


def bound(archive: Path) -> int:
    """Return the number of bytes that an archive may extract to."""
    return max(FLOOR, GROWTH * archive.stat().st_size)


def extract(
    archive: Path,
    folder: Path,
    limit: int | None = None,
    place: Callable[[str], str | None] = lambda name: name,
    progress: Callable[[int], None] = lambda _bytes: None,
) -> None:
    """Extract `archive` into `folder`; after an error, the caller has to remove what was written.

    Args:
        limit: largest number of bytes to write; `bound` by default.
        place: maps the name of an entry to its path in the folder, or to None to skip it.
        progress: called with the number of bytes written so far.

    Raises:
        DataError: the archive is damaged, has unsafe paths, devices or links to elsewhere, exceeds `limit`, or cannot
            be written.
    """
    try:
        budget = _Budget(archive, bound(archive) if limit is None else limit, progress)
        links: list[tuple[str, str, str]] = []
        with _entries(archive, folder, budget) as entries:
            for entry in entries:
                where = place(_safe(archive, entry.name))
                if where is None:
                    continue
                budget.spend(ENTRY + entry.size)
                if entry.kind == "folder":
                    (folder / where).mkdir(parents=True, exist_ok=True)
                elif entry.kind == "file":
                    entry.write(where)
                elif entry.kind == "link":
                    links.append((entry.name, where, _safe(archive, entry.target, f"the link {entry.name} to ")))
                else:
                    raise _refusal(archive, f"{entry.name} is neither a file nor a folder")
        for name, where, target in links:
            file, copy = folder / (place(target) or target), folder / where
            if not file.is_file():
                raise _refusal(archive, f"the link {name} points to {target}, which is not a file of the archive")
            budget.spend(file.stat().st_size)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    except DAMAGED as error:
        raise DataError(
            f"{archive} is damaged ({error or type(error).__name__}); remove it and fetch it again"
        ) from None
    except (RuntimeError, NotImplementedError) as error:  # zipfile: a password, an unknown compression
        raise DataError(f"{archive} cannot be extracted ({error}); extract it yourself into {folder.parent}") from None
    except OSError as error:
        reason = f"cannot extract {archive} into {folder}: {error.strerror or error}"
        advice = "; free some space and try again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise DataError(reason + advice) from None


def _refusal(archive: Path, reason: str) -> DataError:
    return DataError(f"{archive} was not extracted: {reason}. If you trust it, extract it yourself")


def _safe(archive: Path, name: str, what: str = "") -> str:
    """Return the normalised name of an entry; raise `DataError` if it leaves the folder."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name:
        raise DataError(f"{archive} was not extracted: {what}{name!r} leaves the folder; do not trust this file")
    return str(PurePosixPath(name))


@contextmanager
def _entries(archive: Path, folder: Path, budget: _Budget) -> Iterator[Iterator[_Entry]]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            yield _zip_entries(zipped, folder)
    elif name.endswith(".gz") and not name.endswith(".tar.gz"):
        content = archive.name[: -len(".gz")]
        yield iter([_Entry(content, "file", 0, "", lambda where: _gunzip(archive, folder / where, budget))])
    else:
        with open_regular(archive) as file:
            start = file.read(6)
            unpack = next((unpack for magic, unpack in PACKERS.items() if start.startswith(magic)), None)
            file.seek(0)
            stream = _TarStream(archive, unpack(file) if unpack else file, compressed=unpack is not None)
            with stream, tarfile.open(fileobj=stream, mode="r:") as tar:
                yield _tar_entries(tar, folder, stream, budget)


def _gunzip(archive: Path, target: Path, budget: _Budget) -> None:
    """Decompress a file; gzip does not state its size, so that it is counted here."""
    with gzip.open(archive) as content, target.open("wb") as file:
        while chunk := content.read(CHUNK):
            budget.spend(len(chunk))
            file.write(chunk)


def _zip_entries(zipped: zipfile.ZipFile, folder: Path) -> Iterator[_Entry]:
    def write(info: zipfile.ZipInfo, where: str) -> None:
        info.filename = where
        zipped.extract(info, folder)

    for info in zipped.infolist():
        mode = info.external_attr >> 16
        target = ""
        if info.is_dir():
            kind = "folder"
        elif stat.S_ISLNK(mode):
            with zipped.open(info) as content:
                kind, target = "link", _link_target(info.filename, content.read(CHUNK).decode("utf-8", "replace"))
        else:
            kind = "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "other"
        yield _Entry(info.filename, kind, info.file_size, target, lambda where, info=info: write(info, where))


class _TarStream(io.RawIOBase):
    """A tar archive whose headers are limited to `HEADERS` bytes before each entry."""

    def __init__(self, archive: Path, stream: Any, compressed: bool) -> None:
        self.archive, self.stream, self.compressed = archive, stream, compressed
        self.headers: int | None = 0
        """Bytes of headers since the last entry; None while its content is read."""
        self.last = b""
        """Bytes that `read` returned last."""

    def read(self, size: int = -1) -> bytes:
        if self.headers is not None:
            self.headers += size
            if size < 0 or self.headers > HEADERS:
                raise _refusal(self.archive, f"an entry has headers of more than {HEADERS:,} bytes")
        self.last = self.stream.read(size)
        return self.last

    def require_end(self, spend: Callable[[int], None]) -> None:
        """Raise `tarfile.ReadError` if the header that `tarfile` read last is damaged, and not the end of the archive.

        The rest is read as well, because the checksum of compressed data is behind all of it.
        """
        whole = self.last.strip(b"\0") == b"" and (self.last != b"" or self.compressed)
        while rest := self.stream.read(CHUNK):
            spend(len(rest))
        if not whole:
            raise tarfile.ReadError("it ends within its entries, or the header of one is wrong")

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        return self.stream.tell()

    def close(self) -> None:
        self.stream.close()
        super().close()


def _tar_entries(tar: tarfile.TarFile, folder: Path, stream: _TarStream, budget: _Budget) -> Iterator[_Entry]:
    """Yield the entries of a tar archive; `tarfile` takes a damaged header, and a missing rest, for its end."""

    def write(info: tarfile.TarInfo, where: str) -> None:
        tar.extract(info.replace(name=where, deep=False), folder, filter="data")

    while info := tar.next():
        tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - else every entry stays in memory
        kind = "folder" if info.isdir() else "file" if info.isreg() else "other"
        target = ""
        if info.issym():
            kind, target = "link", _link_target(info.name, info.linkname)
        elif info.islnk():
            kind, target = "link", info.linkname
        stream.headers = None
        yield _Entry(info.name, kind, info.size, target, lambda where, info=info: write(info, where))
        stream.headers = 0
    stream.require_end(budget.spend)


def _link_target(name: str, target: str) -> str:
    """Return the target of a symbolic link at `name`, relative to the archive's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


@contextmanager
def extracted(
    archive: Path,
    place: Callable[[str], str | None] = lambda name: name,
    progress: Callable[[int], None] = lambda _bytes: None,
) -> Iterator[Path]:
    """Yield a hidden folder beside `archive` with its content, which is removed after the block.

    The lock is on the archive itself and ends with the process; a lock file would have to be removed.

    Raises:
        DataError: see `extract`; or another process extracts the same archive, or the block cannot move a file.
    """
    folder = archive.with_name(f".{archive.name}.unpacked")
    try:
        with archive.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DataError(f"another process is extracting {archive}; wait until it has finished") from None
            shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
            try:
                folder.mkdir()
                extract(archive, folder, place=place, progress=progress)
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot move the content of {archive} to {archive.parent}: {error.strerror or error}"
        ) from None


def merge(source: Path, folder: Path) -> None:
    """Move the content of `source` into `folder`; existing folders are merged and existing files replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        target = folder / path.name
        if path.is_dir() and target.is_dir():
            merge(path, target)
        else:
            path.replace(target)
