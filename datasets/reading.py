"""Read files and import optional packages; failures become `DataError`s that say what to do."""

import io
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, TypeVar

import numpy as np

from .schema import DEEPEST, Invalid, from_json
from .task import DataError

LARGEST_FILE = 1 << 30
"""Bytes of the largest image that is read (our choice)."""
LARGEST_TEXT = 1 << 26
"""Bytes of the largest text that is read (our choice); the longest official list has 2.5 MB."""

T = TypeVar("T")


class InvalidFile(DataError):
    """A file that is not regular, too large, or not what its schema says: `path`, `field` and `reason`."""

    def __init__(self, path: Path, reason: str, field: str = "") -> None:
        self.path, self.reason, self.field = path, reason, field
        self.detail = f"{field}: {reason}" if field else reason
        super().__init__(f"{path}: {self.detail}")


def expanded(path: Path | str) -> Path:
    """Return a path with `~` replaced by the home folder; unlike pathlib, it leaves `~x` if there is no user x."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading.

    Raises:
        OSError: the file cannot be opened.
        InvalidFile: it is a pipe, a device or a socket, which could block or never end; or a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")  # noqa: PTH123
    os.close(descriptor)
    raise InvalidFile(path, "is not a regular file; replace it by one")


def require_regular(path: Path) -> None:
    """Raise `OSError` or `InvalidFile` like `open_regular`, before a library opens the path."""
    open_regular(path).close()


def read_regular(path: Path, limit: int = LARGEST_TEXT) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises:
        OSError: the file cannot be read.
        InvalidFile: it is not a regular file, or larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(size, limit) + 1)
        if size < len(data) <= limit:  # it grows, or is a file of /proc, whose size is 0
            data += file.read(limit + 1 - len(data))
    if len(data) > limit:
        raise InvalidFile(path, f"has more than {limit:,} bytes")
    return data


def read_bytes(path: Path, limit: int = LARGEST_FILE) -> bytes:
    """Return the content of a regular file of at most `limit` bytes, or raise `DataError`."""
    try:
        return read_regular(path, limit)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def read_text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """Return the content of a UTF-8 file of at most `limit` bytes, or raise `DataError`."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidFile(path, f"is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def read_array_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Read the header of a `.npy` file and return shape and kind of its array.

    Raises:
        ValueError: it is damaged, or the array is not in C order.
    """
    try:
        np.lib.format.read_magic(file)  # numpy writes version 1 for every plain array
        shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
    except (TokenError, SyntaxError, TypeError) as error:  # numpy parses the header as Python
        raise ValueError(f"its array has a damaged header: {error}") from None
    if fortran:
        raise ValueError("its array is in Fortran order")
    return shape, kind


def is_complete_array(path: Path) -> bool:
    """Return True if `path` is an array file of the length that its header states."""
    try:
        with open_regular(path) as file:
            shape, kind = read_array_header(file)
            return os.fstat(file.fileno()).st_size == file.tell() + math.prod(shape) * kind.itemsize
    except (OSError, ValueError, InvalidFile):
        return False


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an `Invalid` value inside the block into an `InvalidFile` that names the file."""
    try:
        yield
    except Invalid as error:
        raise InvalidFile(path, error.reason, error.field) from None


def read_json(path: Path, kind: type[T], limit: int = LARGEST_TEXT, deepest: int | None = DEEPEST) -> T:
    """Return the content of a JSON file as a value of a type.

    Raises:
        InvalidFile: The file is not regular, too large, not JSON, or a value has another type.
        DataError: It cannot be read.
    """
    with naming(path):
        return from_json(read_bytes(path, limit), kind, deepest=deepest)


def import_optional(module: str, user: str, extra: str = "data") -> Any:
    """Import a package of an extra on behalf of `user`, or raise `DataError`."""
    try:
        return import_module(module)
    except ImportError:
        raise DataError(
            f'{user} needs the package {module.partition(".")[0]}; install it: pip install "vtab-peft[{extra}]"'
        ) from None
