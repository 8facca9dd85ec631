"""Read and write JSON files of a results folder; writes are atomic."""

import json
import re
from pathlib import Path
from typing import Any

from ...datasets.atomic_io import atomic_write, create

BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""Exceptions that reading a damaged JSON file may raise."""


class StoreError(Exception):
    """A results folder cannot be used."""


class CorruptRecord(StoreError):
    """A record is damaged or contradicts itself; the run has to be repeated."""


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


def create_new(path: Path, data: bytes) -> bool:
    """Write a file if it does not exist.  Return True if it was written.  Raises `StoreError`."""
    try:
        return create(path, data)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> StoreError:
    """Return the error for a file that cannot be written."""
    return StoreError(f"cannot write {path}: {error.strerror}; free space or give another --results folder")


def to_text(record: dict[str, Any]) -> str:
    """Return a record as readable JSON: indented, sorted keys, short lists on one line."""
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
    flat = re.compile(r"\[\n[^\[\]{}\"]*\]")  # line ends never occur inside JSON strings, so strings are safe
    return flat.sub(lambda match: " ".join(match.group().split()), text) + "\n"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


_decode = json.JSONDecoder(parse_constant=_refuse).decode


def from_text(text: str) -> Any:
    """Parse JSON as written by `to_text`.

    Raises:
        ValueError, RecursionError: The text is not JSON, or holds NaN, Infinity or half a surrogate pair.
    """
    values = _decode(text)
    if "\\u" in text and re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair cannot be encoded
    return values


def what_is_wrong(error: Exception) -> str:
    """Return why a record cannot be read."""
    return f"no field {error}" if isinstance(error, KeyError) else str(error)[:200]
