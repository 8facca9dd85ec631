"""Write the files of a results folder; writes are atomic."""

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ...datasets.atomic_io import PREFIX, atomic_write, create, make_folder


class StoreError(Exception):
    """A results folder cannot be used."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see all of it or nothing.

    Raises:
        StoreError: The folder is read-only or the disk is full; nothing is left behind.
    """
    try:
        with atomic_write(path) as file:
            file.write(data)
    except OSError as error:
        raise unwritable(path, error) from None


def check_writable(path: Path) -> None:
    """Raise `ValueError` if a file that an option names cannot be written, before minutes are spent on its content."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        _try_to_write(path.parent)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; give another file") from None


def create_new(path: Path, data: bytes) -> bool:
    """Write a file if it does not exist.  Return True if it was written.  Raises `StoreError`."""
    try:
        return create(path, data)
    except OSError as error:
        raise unwritable(path, error) from None


def require_writable(folder: Path) -> None:
    """Create a folder of results if necessary; raise `StoreError` if it cannot be written, before time is spent."""
    try:
        _try_to_write(folder)
    except OSError as error:
        raise unwritable(folder, error) from None


def _try_to_write(folder: Path) -> None:
    """Create a folder if necessary; raise `OSError` if no file can be written in it."""
    make_folder(folder)
    with TemporaryFile(prefix=PREFIX, dir=folder):
        pass


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this folder.

    Nothing waits if the folder does not exist yet, or if its file system has no locks.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def unwritable(path: Path, error: OSError) -> StoreError:
    """Return the error for a file that cannot be written."""
    return StoreError(f"cannot write {path}: {error.strerror}; free space or give another folder")


_ESCAPES = re.compile(r"\\(?:ud[89ab]..\\ud[c-f]..|u(d[89a-f]..)|.)")
"""Escapes in JSON text; the group is half a surrogate pair alone, which is not valid Unicode."""
_FLAT = re.compile(r"\[\n[^\[\]{}\"]*\]")
"""A list of numbers; line ends never occur inside JSON strings, so strings are safe."""


def to_text(record: dict[str, Any]) -> str:
    r"""Return a record as readable JSON: indented, sorted keys, short lists on one line.

    A byte of the command line that is not UTF-8 is half a surrogate pair, and becomes the text `\udcff`.
    """
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
    if "\\ud" in text:
        text = _ESCAPES.sub(lambda match: rf"\\u{match[1]}" if match[1] else match[0], text)
    return _FLAT.sub(lambda match: " ".join(match.group().split()), text) + "\n"
