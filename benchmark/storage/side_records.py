"""Records beside those of the runs, such as costs: one JSON file each, written, read and checked in one way."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from ...datasets.atomic_io import PREFIX
from ...datasets.reading import InvalidFile, naming, read_regular
from .json_io import StoreError, to_text, write_atomically
from .layout import LARGEST_RECORD

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True)
class RecordKind(Generic[T]):
    """A kind of record."""

    pattern: str
    """Pattern of its files in a results folder, such as `costs/*/*/*.json`."""
    parse: Callable[[bytes, Path], T]
    """Return the record in a file's bytes; raise `Invalid` if a field is not valid or does not fit the file's name."""
    again: str
    """Advice that follows "delete it, and" in messages about damaged files."""

    def save(self, path: Path, record: T) -> Path:
        """Write a record in place of an earlier one; return its path.

        Raises:
            ValueError: A reader would refuse the record; nothing is written.
            StoreError: The folder cannot be written.
        """
        data = to_text(msgspec.to_builtins(record)).encode()
        self.parse(data, path)
        write_atomically(path, data)
        return path

    def load(self, path: Path) -> T:
        """Read and check a record.

        Raises:
            InvalidFile: A field is not valid, or content and file name disagree.
            StoreError: The file cannot be read.
        """
        try:
            with naming(path):
                return self.parse(read_regular(path, LARGEST_RECORD), path)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from None

    def load_all(self, root: Path) -> tuple[dict[Path, T], list[str]]:
        """Return the records of a results folder, sorted by path, and a message for each that cannot be read."""
        found: dict[Path, T] = {}
        problems: list[str] = []
        for path in sorted(path for path in root.glob(self.pattern) if not path.name.startswith(PREFIX)):
            try:
                found[path] = self.load(path)
            except (InvalidFile, StoreError) as error:
                problems.append(f"{error}; delete it, and {self.again}")
        return found, problems
