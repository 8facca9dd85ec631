"""A source of kitti with few images, and what is built from it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from vtab_peft.datasets.check import check
from vtab_peft.datasets.official import VTAB1K
from vtab_peft.datasets.raw.source import Examples, RawFile, Source
from vtab_peft.datasets.tasks import find

KITTI = VTAB1K["kitti"]
COUNTS = {"train": 20, "val": 10, "test": 30}
"""Counts of kitti in these tests, small so that many builds take little time; elsewhere they are the official ones."""
FILE = RawFile("raw.bin", "https://example.org/raw.bin")


def make_small() -> None:
    VTAB1K["kitti"] = replace(KITTI, sizes={split: (n,) for split, n in COUNTS.items()})  # pyright: ignore


def pixels(split: str, position: int) -> np.ndarray:
    return np.full((2, 3, 3), [position % 256, position // 256, len(split)], np.uint8)


def examples(split: str, n: int, picture: Callable[[str, int], Any]) -> Examples:
    return Examples([f"{split}_{i}" for i in range(n)], [i % 4 for i in range(n)], lambda i: picture(split, i))


def source(picture: Callable[[str, int], Any] = pixels, counts: dict = COUNTS, **facts: Any) -> Source:
    """Builds kitti out of `raw.bin`, with pictures of its own."""
    given = {"task": "kitti", "raw": "kitti", "files": (FILE,), "class_names": tuple("abcd"), **facts}
    return Source(**given, read=lambda raw: {split: examples(split, n, picture) for split, n in counts.items()})


def verdict(data: Path, deep: bool = False) -> Any:
    return check(find(["kitti"], "vtab1k", data)[0], deep)


def listing(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir())
