"""What a task is: a row of facts and a loader that yields images and labels."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

SPLITS = ("train", "val", "test")
SplitName = Literal["train", "val", "test"]
"""`train` and `val` are VTAB-1k's train800 and val200; their concatenation, in this order, is the 1000."""

SUITES = ("vtab1k", "fgvc", "toy")
"""The suites of the project itself; a folder of one's own can claim none of these names."""
PROCEDURAL_SUITES = ("toy",)
"""Suites whose images are made at the time of use, so that they lie nowhere."""


class DataError(Exception):
    """Data that cannot be used; the message says what, where, and what to do."""


@dataclass(frozen=True)
class Split:
    """The examples of one split, in order."""

    labels: np.ndarray
    """[n] int64"""
    images: Sequence[Path | np.ndarray]
    """n encoded image files, or n uint8 arrays [height, width, 3]."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A row of the task table."""

    suite: str
    """`vtab1k`, `fgvc`, `toy`, or what a folder's `task.toml` says (`own` otherwise)."""
    name: str
    group: str
    """`natural`, `specialized` or `structured` in VTAB; the suite's name where there are no groups."""
    classes: int
    sizes: dict[SplitName, tuple[int, ...]]
    """Accepted number of images per split; empty for a folder of one's own."""
    load: Callable[["Task"], dict[SplitName, Split]]
    """Reads `folder`, or makes the images (procedural tasks).  Raises `DataError`."""
    source: str
    licence: str
    citation: str
    folder: Path | None = None
    """Where this task lies on this machine; None for procedural tasks and for rows not yet located."""
    class_names: tuple[str, ...] = ()
    provenance: str = "own"
    """`lossless`, `jpeg75` or `own`; for vtab1k it depends on the files and is known once they are read."""
    archive_only: bool = False
    """Whether it can only be had as the shared archive's JPEG: nobody can tell its images among the originals."""
    version: int = 1
    """Raised when the same name means other data or labels."""

    @property
    def label(self) -> str:
        """What messages call it: `vtab1k/cifar`."""
        return f"{self.suite}/{self.name}"


def nearest(name: str, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(choices), n=2)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
