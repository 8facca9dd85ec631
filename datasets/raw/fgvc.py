"""The five tasks of FGVC from their original archives, with the published splits in `fgvc_splits` (see its README).

Image paths follow VPT (KMnP/vpt src/data/datasets/json_dataset.py, like visinf/adapter_plus data/fgvc.py): files of a
split are below `images` (CUB, NABirds), `Images` (Dogs) or the data folder itself (Flowers, Cars), and the split states
their classes.  The original annotation files are therefore not needed.  The archives of Cars unpack to `cars_train` and
`cars_test` (open-mmlab/mmpretrain datasets/stanford_cars.py).
"""

import lzma
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from ..task import SPLITS, DataError, SplitName
from . import oxford_flowers102 as flowers
from .source import Examples, RawFile, Source, original_files

FOLDER = Path(__file__).parent / "fgvc_splits"
CUT = "*"
"""Ends a file name of which only the beginning is known; the beginning is unique in its folder."""


class Row(NamedTuple):
    """An image of a published split."""

    file: str
    """Path of the image in the unpacked archive; may end in `CUT`."""
    number: int
    """Class number of the authors: with gaps in NABirds, from 1 elsewhere."""
    split: SplitName


def split_rows(task: str) -> list[Row]:
    """Return the published split of a task, sorted by file."""
    with lzma.open(FOLDER / f"{task}.txt.xz", "rt", encoding="utf-8") as lines:
        fields = (line.split() for line in lines)
        return [Row(file, int(number), cast(SplitName, split)) for file, number, split in fields]


def labels(rows: Iterable[Row]) -> dict[int, int]:
    """Map class numbers to labels from 0, in the order of the numbers, with one mapping for all splits.

    VPT's code and most of its descendants use one mapping per split.  NABirds' val has no image of the classes 627 and
    975, so 60 % of its labels are shifted there, and selection on val is wrong.
    """
    return {number: label for label, number in enumerate(sorted({row.number for row in rows}))}


def read(task: str, files: tuple[RawFile, ...], raw: Path) -> dict[SplitName, Examples]:
    """Read the published splits of a task from its raw folder, each sorted by file.

    Raises:
        DataError: a folder or an image is missing.
    """
    originals = _Originals({file.path: _image_folder(file, raw) for file in files})
    rows = split_rows(task)
    found = [originals.find(row.file) for row in rows]
    if missing := [row.file for row, path in zip(rows, found, strict=True) if path is None]:
        raise DataError(
            f"{len(missing):,} of the {len(rows):,} images of fgvc/{task} are not in {raw}, such as "
            f"{', '.join(missing[:3])}; unpack the original archive there again"
        )
    label = labels(rows)
    examples: dict[SplitName, Examples] = {}
    for split in SPLITS:
        chosen = [(row, path) for row, path in zip(rows, found, strict=True) if path and row.split == split]
        keys = [f"{row.file.rpartition('/')[0]}/{path.name}" for row, path in chosen]
        examples[split] = Examples(
            keys, [label[row.number] for row, _ in chosen], [path for _, path in chosen].__getitem__
        )
    return examples


def _image_folder(file: RawFile, raw: Path) -> Path:
    """Return the folder of images; some mirrors of Cars nest it in a folder of the same name."""
    folder = file.find(raw)
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


@dataclass
class _Originals:
    """An index of the raw folder that lists each directory once."""

    places: dict[str, Path]
    """Locations of the folders of the original archives."""
    names: dict[Path, list[str]] = field(default_factory=dict)
    """Sorted file names of the directories listed so far."""

    def find(self, file: str) -> Path | None:
        """Return the path of a `Row`'s file, or None if it is missing."""
        top = next(top for top in self.places if file.startswith(f"{top}/"))
        parent, _, name = file.removeprefix(f"{top}/").rpartition("/")
        folder = self.places[top] / parent
        if folder not in self.names:
            self.names[folder] = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        there, stem = self.names[folder], name.removesuffix(CUT)
        at = bisect_left(there, stem)
        found = at < len(there) and (there[at].startswith(stem) if name.endswith(CUT) else there[at] == name)
        return folder / there[at] if found else None


def _class_names(task: str) -> tuple[str, ...]:
    path = FOLDER / f"{task}.classes.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.exists() else ()


def _source(task: str, raw: str, files: tuple[RawFile, ...], class_names: tuple[str, ...]) -> Source:
    return Source(task, raw, files, class_names, partial(read, task, files))


SOURCES = (
    *(
        _source(task, task, original_files(task), _class_names(task))
        for task in ("cub", "nabirds", "stanforddogs", "stanfordcars")
    ),
    # Oxford Flowers shares its raw folder with VTAB-1k's task of the same images.
    _source("oxfordflowers", "oxford_flowers102", (flowers.IMAGES,), flowers.CLASSES),
)
