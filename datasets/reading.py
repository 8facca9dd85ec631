"""Read files and import optional packages; failures become `DataError`s that say what to do."""

from importlib import import_module
from pathlib import Path
from typing import Any

from .task import DataError


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, or raise `DataError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file, or raise `DataError`."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def import_optional(module: str, user: str) -> Any:
    """Import a package of the extra `data` on behalf of `user`, or raise `DataError`."""
    try:
        return import_module(module)
    except ImportError:
        raise DataError(f'{user} needs the package {module}; install it: pip install "vtab-peft[data]"') from None
