"""Compare two copies of a task: do they show the same pixels, in the same order, with the same labels?"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .archive import read_lists
from .folder import folder_task
from .pixels import CORES, decode, in_order
from .reading import expanded
from .task import SPLITS, DataError, Split, SplitName


@dataclass(frozen=True)
class SplitComparison:
    """Two copies of one split."""

    split: SplitName
    images: tuple[int, int]
    """Number of images in a and in b."""
    same_pixels: int
    """Images of a whose pixels and label b has too, wherever in the list."""
    same_place: int
    """Images with the same pixels and label at the same place of the list."""
    largest: int | None
    """Largest difference of a channel, in 0 to 255, over images of equal size at the same place; None without any."""
    differing: tuple[tuple[str, str], ...]
    """Files at the same place whose pixels or labels differ, from a and from b."""

    @property
    def equal(self) -> bool:
        return self.images[0] == self.images[1] == self.same_place


def task_folders(a: Path, b: Path) -> tuple[list[tuple[str, Path, Path]], list[tuple[str, Path]]]:
    """Return the tasks that both copies have, with their folders, and those that one lacks, with the other copy.

    a and b may be task folders themselves.

    Raises:
        DataError: a folder does not exist, or they share no task.
    """
    a, b = (expanded(folder).resolve() for folder in (a, b))
    for folder in (a, b):
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}")
    if _has_lists(a) and _has_lists(b):
        return [(a.name, a, b)], []
    in_a, in_b = ({path.name for path in folder.iterdir() if _has_lists(path)} for folder in (a, b))
    if not in_a & in_b:
        raise DataError(f"{a} and {b} share no task: no subfolder of the same name has lists in both")
    alone = [(name, a if name in in_a else b) for name in sorted(in_a ^ in_b)]
    return [(name, a / name, b / name) for name in sorted(in_a & in_b)], alone


def compare_tasks(a: Path, b: Path, threads: int = CORES) -> list[SplitComparison]:
    """Decode every image of two task folders and compare them split by split.

    Raises:
        DataError: a folder is no task, or an image cannot be read.
    """
    splits_a, splits_b = (_splits(folder) for folder in (a, b))
    with ThreadPoolExecutor(threads) as pool:
        return [_compare(split, splits_a[split], splits_b[split], pool) for split in SPLITS]


def _has_lists(folder: Path) -> bool:
    return folder.is_dir() and bool(read_lists(folder, None)[0])


def _splits(folder: Path) -> Mapping[SplitName, Split]:
    task = folder_task(folder)
    return task.load(task)


def _compare(split: SplitName, a: Split, b: Split, pool: ThreadPoolExecutor) -> SplitComparison:
    pairs = list(zip(a.images, b.images, strict=False))
    keys_a, keys_b = (_keys(part, pool) for part in (a, b))
    places = [place for place in range(len(pairs)) if keys_a[place] != keys_b[place]]
    differences = [
        value
        for value in in_order(lambda place: _difference(*pairs[place]), places, pool)
        if value is not None and not isinstance(value, DataError)
    ]
    return SplitComparison(
        split=split,
        images=(len(keys_a), len(keys_b)),
        same_pixels=sum((Counter(keys_a) & Counter(keys_b)).values()),
        same_place=len(pairs) - len(places),
        largest=max(differences, default=None),
        differing=tuple((str(pairs[place][0]), str(pairs[place][1])) for place in places),
    )


def _keys(part: Split, pool: ThreadPoolExecutor) -> Sequence[str]:
    """Return a hash of pixels and label for each image.  Raises `DataError` for an unreadable one."""
    keys = []
    for label, found in zip(part.labels, in_order(_pixel_hash, part.images, pool), strict=True):
        if isinstance(found, DataError):
            raise found
        keys.append(f"{found} {label}")
    return keys


def _pixel_hash(image: Path | np.ndarray) -> str:
    pixels = decode(image, None)
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def _difference(a: Path | np.ndarray, b: Path | np.ndarray) -> int | None:
    in_a, in_b = (decode(image, None).astype(np.int16) for image in (a, b))
    return int(np.abs(in_a - in_b).max()) if in_a.shape == in_b.shape else None
