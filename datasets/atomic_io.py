"""Write files and arrays that appear complete or not at all, even if the writer is killed."""

import errno
import os
import platform
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

PREFIX = ".tmp-"
DAY = 24 * 3600
"""Seconds without a write after which a temporary file of another machine is abandoned (our choice)."""
NAMESPACE = Path("/proc/self/ns/pid")
"""Its inode is the PID namespace of this process (Linux, namespaces(7))."""

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Errors of file systems without hard links (FAT, some network file systems)."""

UNFINISHED = re.compile(rf"{re.escape(PREFIX)}(?P<host>.+)-(?P<process>[0-9]+)-[0-9a-f]+")
"""Pattern of the names that `temporary_name` returns."""

NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""Errors of file systems that cannot sync folders (SMB, some FUSE file systems)."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that is renamed to `path` when the block succeeds and removed when it fails.

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
    """Write a new file; return False and leave the file unchanged if it exists.

    If several processes try at the same time, exactly one succeeds, also on a network file system.

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
    """Yield a new file that is synced to disk when the block ends."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return temporary.stat().st_nlink == 2  # NFS may create the link, lose the answer, and retry
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if path.exists():
            return False
        temporary.replace(path)
    return True


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, each synced so that it survives a power failure."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Sync a folder so that new names survive a power failure, where the file system supports it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(opened)


def write_array(path: Path, shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[np.ndarray]) -> None:
    """Write a `.npy` file from consecutive parts, without a memory map, so that a full disk raises an error."""
    with atomic_write(path) as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).data)


def remove_temp_files(folder: Path) -> None:
    """Remove the temporary files of killed processes from `folder`."""
    for path in abandoned(folder.glob(f"{PREFIX}*")):
        path.unlink(missing_ok=True)


def abandoned(temporary: Iterable[Path]) -> Iterator[Path]:
    """Yield the temporary files whose writers have ended; those that are gone by now are passed over."""
    for path in temporary:
        with suppress(FileNotFoundError):
            if is_abandoned(path.name, path.stat().st_mtime):
                yield path


def host() -> str:
    """Return the name of the machine and, on Linux, the PID namespace.

    Containers on one machine may share its name without seeing each other's processes.
    """
    try:
        return f"{platform.node()}-{NAMESPACE.stat().st_ino}"
    except OSError:
        return platform.node()


def temporary_name() -> str:
    """Return a unique file name from which other processes can tell if the writer is still alive."""
    return f"{PREFIX}{host()}-{os.getpid()}-{uuid.uuid4().hex}"


def is_abandoned(name: str, last_write: float) -> bool:
    """Return True if the writer of a temporary file has ended.

    Files of another machine, container or name pattern count as abandoned after a day.

    Args:
        last_write: time of the last write in seconds since 1970.
    """
    made = UNFINISHED.fullmatch(name)
    if made is not None and made["host"] == host():
        return not is_alive(int(made["process"]))  # independent of the clock
    return abs(time.time() - last_write) > DAY


def is_alive(process: int) -> bool:
    """Return True if a process with this ID runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it exists and belongs to another user
    return True
