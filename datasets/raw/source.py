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

from ..task import SplitName

Picture = Path | bytes | np.ndarray
"""An encoded image file, its bytes, or uint8 pixels [height, width, 3]; files and bytes are taken over as they are."""


@dataclass(frozen=True)
class Examples:
    """Some examples of a task, in order.  Pictures are asked for one at a time, so that none need be in memory."""

    keys: Sequence[str]
    """What the list file's comment and the manifest call them; unique."""
    labels: Sequence[int]
    picture: Callable[[int], Picture]
    """From the position in `keys` to the image."""

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
