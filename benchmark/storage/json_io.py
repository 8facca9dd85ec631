"""Files of a results folder: JSON that people read, written whole or not at all, and what can be wrong with it."""

import json
import re
from pathlib import Path
from typing import Any

from ...datasets.atomic_io import atomic_write, create

BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What reading a file raises whose JSON is not what was written."""


class StoreError(Exception):
    """A results folder that cannot be used; the message says what, where, and what to do."""


class CorruptRecord(StoreError):
    """A record that contradicts itself or lacks something; its cell has to be run again."""


def write_atomically(path: Path, data: bytes) -> None:
    """A reader sees all of the file or nothing.

    Raises:
        StoreError: the folder cannot be written (read-only, full disk); nothing is left behind.
    """
    try:
        with atomic_write(path) as file:
            file.write(data)
    except OSError as error:
        raise unwritable(path, error) from None


def create_new(path: Path, data: bytes) -> bool:
    """Whether a file could be written that was not there.  Raises `StoreError`."""
    try:
        return create(path, data)
    except OSError as error:
        raise unwritable(path, error) from None


def content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write {path}: {error.strerror}; free space or give another --results folder")


def to_text(record: dict[str, Any]) -> str:
    """A record as people read and diff it: indented, sorted keys, short lists on one line."""
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
    flat = re.compile(r"\[\n[^\[\]{}\"]*\]")  # a line end is never inside a string, so strings stay as they are
    return flat.sub(lambda match: " ".join(match.group().split()), text) + "\n"


def from_text(text: str) -> Any:
    """JSON as `to_text` writes it: without infinite numbers, and with text that can be written again.

    Raises:
        ValueError, RecursionError: it is none.
    """
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(json.loads(text), ensure_ascii=False).encode()  # half a surrogate pair is no text
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def what_is_wrong(error: Exception) -> str:
    """Why a record cannot be read."""
    return f"no field {error}" if isinstance(error, KeyError) else str(error)[:200]
