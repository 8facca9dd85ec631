"""The five tasks of FGVC from their original archives, with the published splits in `fgvc_splits` (see its README).

Where the images lie is the convention of VPT (KMnP/vpt src/data/datasets/json_dataset.py; the same in
visinf/adapter_plus data/fgvc.py): a file of the split is looked for below `images` (CUB, NABirds), `Images` (Dogs) or
the data folder itself (Flowers, Cars), and its class is what the split says.  So the labels need none of the
original annotation files.  Cars' archives unpack to `cars_train` and `cars_test` (open-mmlab/mmpretrain
datasets/stanford_cars.py).  Checksums are those of tensorflow/datasets url_checksums.
"""

import lzma
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from ..task import SPLITS, DataError, SplitName
from .oxford_flowers102 import CLASSES as FLOWERS
from .oxford_flowers102 import IMAGES as FLOWER_IMAGES
from .source import Examples, RawFile, Source

_CARS = "take the archive from the authors or, where their page does not answer, from a mirror, and unpack it"
FOLDER = Path(__file__).parent / "fgvc_splits"
CUT = "*"
"""Ends a file name of which only the beginning is known; no other file in its folder begins like that."""


class Row(NamedTuple):
    """An image of a published split."""

    file: str
    """As the original archive unpacks in the raw folder; it may end in `CUT`."""
    number: int
    """The class as the set's authors number it: with gaps in NABirds, from 1 elsewhere."""
    split: SplitName


def split_rows(task: str) -> list[Row]:
    """The published split of a task, sorted by file."""
    with lzma.open(FOLDER / f"{task}.txt.xz", "rt", encoding="utf-8") as lines:
        fields = (line.split() for line in lines)
        return [Row(file, int(number), cast(SplitName, split)) for file, number, split in fields]


def labels(rows: Iterable[Row]) -> dict[int, int]:
    """From class numbers to labels from 0, in the order of the numbers: one mapping for all splits.

    VPT's code and most of its descendants make one for each split.  NABirds' val has no image of the classes 627 and
    975, so 60 % of the labels there are shifted against those of train, and what is chosen on val is chosen wrongly.
    """
    return {number: label for label, number in enumerate(sorted({row.number for row in rows}))}


def read(task: str, files: tuple[RawFile, ...], raw: Path) -> dict[SplitName, Examples]:
    """The published splits of a task, each sorted by file, out of its raw folder.  The files are taken as they are.

    Raises:
        DataError: a folder or some of the images are not there.
    """
    originals = _Originals({file.path: _unpacked(file, raw) for file in files})
    rows = split_rows(task)
    found = [originals.find(row.file) for row in rows]
    if absent := [row.file for row, path in zip(rows, found, strict=True) if path is None]:
        raise DataError(
            f"{len(absent):,} of the {len(rows):,} images of fgvc/{task} are not in {raw}, such as "
            f"{', '.join(absent[:3])}; unpack the original archive there again"
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


def _unpacked(file: RawFile, raw: Path) -> Path:
    """The folder of images, also when its archive was unpacked in a folder of its own name (as in Cars' mirrors)."""
    folder = file.find(raw)
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


@dataclass
class _Originals:
    """The files of the raw folder; each directory is read once."""

    places: dict[str, Path]
    """Where the folders of the original archives lie here."""
    names: dict[Path, list[str]] = field(default_factory=dict)
    """Sorted file names of the directories seen so far."""

    def find(self, file: str) -> Path | None:
        """The path of a `Row`'s file; None where it is not there."""
        top = next(top for top in self.places if file.startswith(f"{top}/"))
        parent, _, name = file.removeprefix(f"{top}/").rpartition("/")
        folder = self.places[top] / parent
        if folder not in self.names:
            self.names[folder] = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        there, stem = self.names[folder], name.removesuffix(CUT)
        at = bisect_left(there, stem)
        is_it = at < len(there) and (there[at].startswith(stem) if name.endswith(CUT) else there[at] == name)
        return folder / there[at] if is_it else None


def _source(task: str, class_names: tuple[str, ...], *files: RawFile, raw: str | None = None) -> Source:
    return Source(task, raw or task, files, class_names, partial(read, task, files))


def _names(task: str) -> tuple[str, ...]:
    return tuple((FOLDER / f"{task}.classes.txt").read_text(encoding="utf-8").splitlines())


FGVC_SOURCES: dict[str, Source] = {
    source.task: source
    for source in (
        _source(
            "cub",
            _names("cub"),
            RawFile(
                "CUB_200_2011/images",
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
                instead=("images",),  # as VPT wants it
            ),
        ),
        _source(
            "nabirds",
            (),
            RawFile(
                "nabirds/images",
                "https://dl.allaboutbirds.org/nabirds",
                manual="agree to the terms of its page, and unpack nabirds.tar.gz",
                instead=("images",),
            ),
        ),
        _source("oxfordflowers", FLOWERS, FLOWER_IMAGES, raw="oxford_flowers102"),
        _source(
            "stanforddogs",
            _names("stanforddogs"),
            RawFile(
                "Images",
                "http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar",
                "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            ),
        ),
        _source(
            "stanfordcars",
            _names("stanfordcars"),
            RawFile(
                "cars_train",
                "http://ai.stanford.edu/~jkrause/car196/cars_train.tgz",
                "512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
                manual=_CARS,
            ),
            RawFile(
                "cars_test",
                "http://ai.stanford.edu/~jkrause/car196/cars_test.tgz",
                "bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
                manual=_CARS,
            ),
        ),
    )
}
"""By the names of datasets/fgvc.py.  Oxford Flowers shares its raw folder with VTAB-1k's task of the same images."""
