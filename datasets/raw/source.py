"""How a task of VTAB-1k is made from the original public files, without TensorFlow.

The official 800, 200 and test images are contiguous slices of the TFDS file order, and that order is the order of
an MD5 over the split's name and the example's key (tensorflow/datasets core/hashing.py, core/shuffle.py).  So a
source only has to say which examples the original files hold, under which keys.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..task import DataError, SplitName

Picture = Path | bytes | np.ndarray
"""An encoded image file, its bytes, or uint8 pixels [height, width, 3] or [height, width]: grey, which every reader
turns into three equal channels.  Files and bytes are taken over as they are."""


@dataclass(frozen=True)
class Examples:
    """Some examples of a task, in order.  Pictures are asked for when they are needed, so that few are in memory."""

    keys: Sequence[str]
    """What the original calls them, unique: TFDS's keys.  The manifest names the 1000 training images by them."""
    labels: Sequence[int]
    picture: Callable[[int], Picture]
    """From the position in `keys` to the image; called from several threads at once."""

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, positions: Sequence[int]) -> "Examples":
        """These of them, in this order."""
        return Examples(
            [self.keys[i] for i in positions],
            [self.labels[i] for i in positions],
            lambda i: self.picture(positions[i]),
        )

    def __add__(self, other: "Examples") -> "Examples":
        n = len(self)
        return Examples(
            [*self.keys, *other.keys],
            [*self.labels, *other.labels],
            lambda i: self.picture(i) if i < n else other.picture(i - n),
        )


@dataclass(frozen=True)
class RawFile:
    """An original file or folder that a task is built from."""

    path: str
    """Below the task's raw folder; what the download is called there, and what it unpacks to where it is an archive."""
    url: str
    """Where it is published; a page to visit where `manual` says so."""
    sha256: str | None = None
    """Of the download, where it is known for certain."""
    manual: str | None = None
    """What to do by hand where a licence or a login stands before the download."""
    instead: tuple[str, ...] = ()
    """Other forms of the same content that are read as well, below the raw folder: unpacked, or another format."""
    stand_in: tuple[str, str] | None = None
    """A file that may take the original's place, and what to call the data then; its provenance is `own`."""

    def find(self, raw: Path) -> Path:
        """Where it lies in the task's raw folder: `path`, else one of `instead`, else `stand_in`.

        Raises:
            DataError: none of them is there; the message says where to get it.
        """
        accepted = [self.path, *self.instead, *(self.stand_in or ())[:1]]
        for name in accepted:
            if (raw / name).exists():
                return raw / name
        also = f" (or {', '.join(accepted[1:])})" if accepted[1:] else ""
        get = f"{self.manual}; see {self.url}" if self.manual else f"get it from {self.url}"
        raise DataError(f"there is no {self.path}{also} in {raw}: {get}")


@dataclass(frozen=True)
class Source:
    """How one task comes out of its raw folder."""

    task: str
    """The name in VTAB-1k."""
    raw: str
    """The raw folder's name; tasks made of the same files share it."""
    files: tuple[RawFile, ...]
    class_names: tuple[str, ...]
    read: Callable[[Path], Mapping[SplitName, Examples]]
    """From the raw folder to the three official splits, in official order.  Raises `DataError`."""


def tfds_order(keys: Sequence[str], salt: str) -> list[int]:
    """Positions of `keys` in the order in which TFDS writes a split whose name is `salt`."""
    start = hashlib.md5(salt.encode(), usedforsecurity=False)

    def digest(position: int) -> bytes:
        hasher = start.copy()
        hasher.update(keys[position].encode())
        return hasher.digest()

    return sorted(range(len(keys)), key=digest)


def first_1000(examples: Examples, order: Sequence[int], val_from: int) -> dict[SplitName, Examples]:
    """train800 and val200 where both come from one TFDS split that holds `examples` in `order`."""
    return {"train": examples.take(order[:800]), "val": examples.take(order[val_from : val_from + 200])}
