"""Files and arrays that appear complete or not at all, whatever kills the writer."""

import os
import platform
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

PREFIX = ".tmp-"
DAY = 24 * 3600
"""Seconds without a write after which an unfinished file belongs to nobody (ours; writers write all the time)."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to; it takes the name `path` when the block ends, and vanishes when the block fails.

    Raises:
        OSError: no space, no permission, ...; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name())
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else a power cut may take the new name back
    finally:
        os.close(folder)


def write_array(path: Path, shape: tuple[int, ...], kind: np.dtype, parts: Iterable[np.ndarray]) -> None:
    """A `.npy` file out of its consecutive parts.  Plain writes, so that a full disk is an error and not a crash."""
    with replacing(path) as file:
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


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder`."""
    for path in folder.glob(f"{PREFIX}*"):
        try:
            if is_abandoned(path.name, path.stat().st_mtime):
                path.unlink()
        except FileNotFoundError:
            continue  # its writer has just finished, or another process removes it as well


def temporary_name() -> str:
    """For what this process is writing; other processes can tell from it whether the writer still lives."""
    return f"{PREFIX}{platform.node()}-{os.getpid()}-{uuid.uuid4().hex}"


def is_abandoned(name: str, last_write: float) -> bool:
    """Whether what is called `name`, a `temporary_name`, has no writer any more.  last_write: seconds since 1970."""
    if time.time() - last_write > DAY:
        return True
    host, process, _ = name.removeprefix(PREFIX).rsplit("-", 2)
    return host == platform.node() and not _is_alive(int(process))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists, and is somebody else's
    return True
