"""How a task of VTAB-1k is built from the original public files, without TensorFlow.

The official 800, 200 and test images are contiguous slices of the file order of TensorFlow Datasets (TFDS).  TFDS sorts
examples by an MD5 over the split's name and the example's key (tensorflow/datasets core/hashing.py, core/shuffle.py).
A source therefore only has to return the examples of the original files and their keys.  The order is implemented here
because importing TFDS would require TensorFlow.
"""

import hashlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..known_file import KnownFile
from ..task import DataError, SplitName

Picture = Path | bytes | np.ndarray
"""An image file, its bytes, or uint8 pixels [height, width, 3] or [height, width] (grey, read as three equal
channels).  Files and bytes are copied without re-encoding."""


@dataclass(frozen=True)
class Examples:
    """Ordered examples of a task.  Pictures are loaded on demand, so that only a few are in memory."""

    keys: Sequence[str]
    """Unique keys of TFDS.  The manifest lists the 1000 training images by them."""
    labels: Sequence[int]
    picture: Callable[[int], Picture]
    """Return the image at a position in `keys`; called from several threads at once."""

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, positions: Sequence[int]) -> "Examples":
        """Return the examples at `positions`, in that order."""
        return Examples(
            [self.keys[i] for i in positions],
            [self.labels[i] for i in positions],
            lambda i: self.picture(positions[i]),
        )


@dataclass(frozen=True)
class RawFile:
    """An original file or folder that a task is built from; original_files.toml explains the fields."""

    path: str
    url: str
    sha256: str | None = None
    manual: str | None = None
    instead: tuple[str, ...] = ()
    stand_in: tuple[str, str] | None = None
    bytes: int | None = None
    md5: str | None = None
    mirror: "RawFile | None" = None

    @property
    def known(self) -> KnownFile:
        return KnownFile(self.bytes, self.sha256, self.md5)

    def find(self, raw: Path) -> Path:
        """Return the first of `path`, `instead` and `stand_in` that exists in the raw folder.

        Raises:
            DataError: none of them exists; the message says where to get the file.
        """
        accepted = [self.path, *self.instead, *(self.stand_in or ())[:1]]
        for name in accepted:
            if (raw / name).exists():
                return raw / name
        also = f" (or {', '.join(accepted[1:])})" if accepted[1:] else ""
        get = f"{self.manual}; see {self.url}" if self.manual else f"get it from {self.url}"
        raise DataError(f"there is no {self.path}{also} in {raw}: {get}")


def original_files(data_set: str) -> tuple[RawFile, ...]:
    """Return the files that original_files.toml lists for a raw data set, in its order."""
    return tuple(_raw_file(row) for row in _toml("original_files.toml")[data_set])


def class_names(data_set: str) -> tuple[str, ...]:
    """Return the class names that class_names.toml lists for a raw data set."""
    return tuple(_toml("class_names.toml")[data_set])


@cache
def _toml(name: str) -> dict[str, list[Any]]:
    return tomllib.loads((Path(__file__).parent / name).read_text("utf-8"))


def _raw_file(row: dict[str, Any]) -> RawFile:
    facts: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    if "mirror" in row:
        facts["mirror"] = RawFile(row["path"], **row["mirror"])
    return RawFile(**facts)


@dataclass(frozen=True)
class Source:
    """The recipe to build one task from its raw folder."""

    task: str
    """Name of the official task."""
    raw: str
    """Name of the raw folder, shared by tasks that are made of the same files."""
    files: tuple[RawFile, ...]
    class_names: tuple[str, ...]
    read: Callable[[Path], Mapping[SplitName, Examples]]
    """Return the three official splits of a raw folder in official order.  Raises `DataError`."""


def tfds_order(keys: Sequence[str], salt: str) -> list[int]:
    """Return the positions of `keys` in the order in which TFDS writes the split named `salt`."""
    start = hashlib.md5(salt.encode(), usedforsecurity=False)

    def digest(position: int) -> bytes:
        hasher = start.copy()
        hasher.update(keys[position].encode())
        return hasher.digest()

    return sorted(range(len(keys)), key=digest)


def official_splits(train: Examples, validation: Examples, test: Examples) -> dict[SplitName, Examples]:
    """Return train[:800], validation[:200] and all of test, for originals that have a validation set.

    The examples are given in the order of the original files and sorted here as TFDS sorts its splits of these names.
    """
    return {
        "train": train.take(tfds_order(train.keys, "train")[:800]),
        "val": validation.take(tfds_order(validation.keys, "validation")[:200]),
        "test": test.take(tfds_order(test.keys, "test")),
    }


def splits_from_train(
    train: Examples, test: Examples, val_percent: int, test_salt: str = "test"
) -> dict[SplitName, Examples]:
    """Return train[:800], the first 200 of train[val_percent%:] and all of test, in TFDS's order."""
    order = tfds_order(train.keys, "train")
    val_from = len(order) * val_percent // 100
    return {
        "train": train.take(order[:800]),
        "val": train.take(order[val_from : val_from + 200]),
        "test": test.take(tfds_order(test.keys, test_salt)),
    }


def splits_60_20_20(whole: Examples) -> dict[SplitName, Examples]:
    """Return the splits of a task whose original is a single set: 60 % train, 20 % validation, 20 % test.

    Train800 and val200 are the first of their parts.  Limits are rounded down (google-research/task_adaptation
    data/eurosat.py, data/resisc45.py).
    """
    order = tfds_order(whole.keys, "train")
    val_from = len(order) * 60 // 100
    test_from = val_from + len(order) * 20 // 100
    return {
        "train": whole.take(order[:800]),
        "val": whole.take(order[val_from : val_from + 200]),
        "test": whole.take(order[test_from:]),
    }
