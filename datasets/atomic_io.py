"""Files and arrays that appear complete or not at all, whatever kills the writer."""

import errno
import os
import platform
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

PREFIX = ".tmp-"
DAY = 24 * 3600
"""Seconds without a write after which an unfinished file of another machine belongs to nobody (ours; writers write all
the time)."""
NAMESPACE = Path("/proc/self/ns/pid")
"""Its inode is the PID namespace of this process (Linux, namespaces(7))."""

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links (FAT, some network ones) say when asked for one."""

UNFINISHED = re.compile(rf"{re.escape(PREFIX)}(?P<host>.+)-(?P<process>[0-9]+)-[0-9a-f]+")
"""What `temporary_name` makes."""

NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""What file systems that only sync files (SMB, some FUSE ones) say when asked to sync a folder."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write to; it takes the name `path` when the block ends, and vanishes when the block fails.

    Raises:
        OSError: no space, no permission, ...; nothing is left behind.
    """
    make_folder(path.parent)
    temporary = path.with_name(temporary_name())
    try:
        with _synced(temporary) as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Write a file that must not be there yet; False when it is, and then it stays as it was.

    Of several processes that try at the same time, also over a network file system, one succeeds.

    Raises:
        OSError: no space, no permission, ...; nothing is left behind.
    """
    make_folder(path.parent)
    temporary = path.with_name(temporary_name())
    try:
        with _synced(temporary) as file:
            file.write(data)
        created = _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return created


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which is on the disk when the block ends."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return temporary.stat().st_nlink == 2  # NFS may make the link, lose the answer, and ask again
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if path.exists():
            return False
        temporary.replace(path)
    return True


def make_folder(folder: Path) -> None:
    """With all above it that are missing, and so that a power cut takes none of them back."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Else a power cut may take a new name back.  Where folders cannot be synced, nothing more can be done."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(opened)


def write_array(path: Path, shape: tuple[int, ...], kind: np.dtype, parts: Iterable[np.ndarray]) -> None:
    """A `.npy` file out of its consecutive parts.  Plain writes, so that a full disk is an error and not a crash."""
    with atomic_write(path) as file:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).data)


def is_whole(path: Path) -> bool:
    """Whether `path` is an array file of the length that its header says."""
    try:
        np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


def remove_temp_files(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder`."""
    for path in folder.glob(f"{PREFIX}*"):
        try:
            if is_abandoned(path.name, path.stat().st_mtime):
                path.unlink()
        except FileNotFoundError:
            continue  # its writer has just finished, or another process removes it as well


def host() -> str:
    """Of this process: where it can ask for others by their number.

    Containers may share the name of a machine and not see each other's processes, so the number of the PID namespace
    comes behind it, where there are such.
    """
    try:
        return f"{platform.node()}-{NAMESPACE.stat().st_ino}"
    except OSError:
        return platform.node()


def temporary_name() -> str:
    """For what this process is writing; other processes can tell from it whether the writer still lives."""
    return f"{PREFIX}{host()}-{os.getpid()}-{uuid.uuid4().hex}"


def is_abandoned(name: str, last_write: float) -> bool:
    """Whether an unfinished file has no writer any more; one of another machine, container or name, after a day.

    last_write: seconds since 1970.
    """
    made = UNFINISHED.fullmatch(name)
    if made is not None and made["host"] == host():
        return not is_alive(int(made["process"]))  # whatever the clock says
    return abs(time.time() - last_write) > DAY


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it exists, and is somebody else's
    return True
