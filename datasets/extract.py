"""Zip, tar and gzip archives of strangers, unpacked so that nothing leaves the folder and nothing grows without bound.

No link is ever made: one to a file of the same archive becomes a copy of that file, and any other is refused.
"""

import errno
import fcntl
import gzip
import lzma
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from .task import DataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".gz")
GROWTH = 20
"""How many times its own size an archive may unpack to (ours); smallnorb's images, the densest here, grow 3.4-fold."""
FLOOR = 1 << 30
"""Bytes that any archive may unpack to (ours): small lists of labels shrink several hundredfold."""
ENTRY = 512
"""Bytes that an entry counts beside its content (ours: a tar header), so that empty files have a bound as well."""
CHUNK = 1 << 20

DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, ValueError, OverflowError),
)
"""What the standard library's readers raise on damaged bytes."""


@dataclass(frozen=True)
class _Entry:
    name: str
    kind: str
    """`file`, `folder`, `link` or `other`."""
    target: str
    """Of a link: relative to the archive's root."""
    open: Callable[[], IO[bytes] | None]


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def bound(archive: Path) -> int:
    """Bytes that an archive may unpack to."""
    return max(FLOOR, GROWTH * archive.stat().st_size)


def extract(
    archive: Path,
    folder: Path,
    limit: int | None = None,
    place: Callable[[str], str | None] = lambda name: name,
    progress: Callable[[int], None] = lambda _bytes: None,
) -> None:
    """Unpack `archive` into `folder`, which belongs to the caller: after an error, what was written is still there.

    At most `limit` bytes are written (default: `bound`).  `place` gives each entry its path in the folder, or None to
    leave it out; `progress` is told the bytes written so far.

    Raises:
        DataError: the archive is damaged, wants to write outside the folder, holds devices or links elsewhere,
            unpacks to more than `limit`, or cannot be written.
    """
    writer = _Writer(archive, folder, limit, progress)
    try:
        with _entries(archive) as entries:
            for entry in entries:
                where = place(_inside(archive, entry.name))
                if where is not None:
                    writer.write(entry, where)
        writer.copy_links(place)
    except DAMAGED as error:
        advice = "remove it and fetch it again"
        raise DataError(f"{archive} is damaged ({error or type(error).__name__}); {advice}") from None
    except (RuntimeError, NotImplementedError) as error:  # zipfile: a password, an unknown compression
        raise DataError(f"{archive} cannot be unpacked ({error}); unpack it by hand into {folder.parent}") from None
    except OSError as error:
        reason = f"cannot unpack {archive} into {folder}: {error.strerror or error}"
        advice = "; make room and try again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise DataError(reason + advice) from None


class _Writer:
    """Writes entries, and counts."""

    def __init__(self, archive: Path, folder: Path, limit: int | None, progress: Callable[[int], None]) -> None:
        self.archive = archive
        self.folder = folder
        self.limit = bound(archive) if limit is None else limit
        self.progress = progress
        self.written = 0
        self.links: list[tuple[str, str, str]] = []

    def write(self, entry: _Entry, where: str) -> None:
        target = self.folder / where
        self._count(ENTRY)
        if entry.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
        elif entry.kind == "link":
            self.links.append((entry.name, where, _inside(self.archive, entry.target, f"the link {entry.name} to ")))
        elif entry.kind == "file" and (content := entry.open()) is not None:
            with content:
                self._copy(content, target)
        else:
            raise self._refused(f"{entry.name} is neither a file nor a folder")

    def copy_links(self, place: Callable[[str], str | None]) -> None:
        for name, where, target in self.links:
            file = self.folder / (place(target) or target)
            if not file.is_file():
                raise self._refused(f"the link {name} leads to {target}, which is no file of the archive")
            with file.open("rb") as content:
                self._copy(content, self.folder / where)

    def _copy(self, content: IO[bytes], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            while chunk := content.read(CHUNK):
                self._count(len(chunk))
                file.write(chunk)
        self.progress(self.written)

    def _count(self, size: int) -> None:
        self.written += size
        if self.written > self.limit:
            raise self._refused(f"it unpacks to more than {self.limit:,} bytes")

    def _refused(self, why: str) -> DataError:
        return DataError(f"{self.archive} was not unpacked: {why}. If you trust it, unpack it by hand")


def _inside(archive: Path, name: str, what: str = "") -> str:
    """The normalised name; refused where it leads out of the folder."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name:
        raise DataError(f"{archive} was not unpacked: {what}{name!r} leads out of the folder; do not trust this file")
    return str(PurePosixPath(name))


@contextmanager
def _entries(archive: Path) -> Iterator[Iterator[_Entry]]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            yield _of_zip(zipped)
    elif name.endswith(".gz") and not name.endswith(".tar.gz"):
        yield iter([_Entry(archive.name[: -len(".gz")], "file", "", lambda: _gunzipped(archive))])
    else:
        with tarfile.open(archive) as tar:
            yield _of_tar(tar)


def _gunzipped(archive: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(archive))


def _of_zip(zipped: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in zipped.infolist():
        mode = info.external_attr >> 16
        target = ""
        if info.is_dir():
            kind = "folder"
        elif stat.S_ISLNK(mode):
            with zipped.open(info) as content:
                kind, target = "link", _beside(info.filename, content.read(CHUNK).decode("utf-8", "replace"))
        else:
            kind = "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "other"
        yield _Entry(info.filename, kind, target, lambda info=info: zipped.open(info))


def _of_tar(tar: tarfile.TarFile) -> Iterator[_Entry]:
    for info in tar:
        kind = "folder" if info.isdir() else "file" if info.isreg() else "other"
        target = ""
        if info.issym():
            kind, target = "link", _beside(info.name, info.linkname)
        elif info.islnk():
            kind, target = "link", info.linkname
        yield _Entry(info.name, kind, target, lambda info=info: tar.extractfile(info))


def _beside(name: str, target: str) -> str:
    """Where a symbolic link at `name` leads, from the archive's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


@contextmanager
def extracted(
    archive: Path,
    place: Callable[[str], str | None] = lambda name: name,
    progress: Callable[[int], None] = lambda _bytes: None,
) -> Iterator[Path]:
    """What `archive` holds, in a hidden folder beside it that vanishes after the block: move away what is wanted.

    Raises:
        DataError: as `extract`, or another process unpacks the same archive, or the block could not move something.
    """
    folder = archive.with_name(f".{archive.name}.unpacked")
    try:
        with archive.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DataError(f"another process is unpacking {archive}; wait until it has ended") from None
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
            try:
                folder.mkdir()
                extract(archive, folder, place=place, progress=progress)
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise DataError(f"cannot put what {archive} holds into {archive.parent}: {error.strerror or error}") from None


def merge(source: Path, folder: Path) -> None:
    """Move what is in `source` into `folder`; folders that both have are merged, files are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        target = folder / path.name
        if path.is_dir() and target.is_dir():
            merge(path, target)
        else:
            path.replace(target)
