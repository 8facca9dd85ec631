"""Read files and import optional packages; failures become `DataError`s that say what to do."""

import io
import os
import stat
from importlib import import_module
from pathlib import Path
from typing import Any

from .task import DataError

LARGEST_FILE = 1 << 30
"""Bytes of the largest image that is read (our choice)."""
LARGEST_TEXT = 1 << 26
"""Bytes of the largest text that is read (our choice); the longest official list has 2.5 MB."""


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading.

    Raises:
        OSError: the file cannot be opened.
        DataError: it is a pipe, a device or a socket, which could block or never end; or a folder.
    """
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: PTH123, SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise DataError(f"{path}: is not a regular file; replace it by one")


def read_bytes(path: Path, limit: int = LARGEST_FILE) -> bytes:
    """Return the content of a regular file of at most `limit` bytes, or raise `DataError`."""
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > limit:
        raise DataError(f"{path}: has more than {limit:,} bytes")
    return data


def read_text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """Return the content of a UTF-8 file of at most `limit` bytes, or raise `DataError`."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def import_optional(module: str, user: str, extra: str = "data") -> Any:
    """Import a package of an extra on behalf of `user`, or raise `DataError`."""
    try:
        return import_module(module)
    except ImportError:
        raise DataError(
            f'{user} needs the package {module.partition(".")[0]}; install it: pip install "vtab-peft[{extra}]"'
        ) from None
