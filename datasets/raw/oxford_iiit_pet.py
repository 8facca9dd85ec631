"""Oxford-IIIT Pet (tensorflow/datasets datasets/oxford_iiit_pet, version 3.2.0)."""

from pathlib import Path

from ..task import DataError, SplitName
from .files import lines, number, require_files
from .source import Examples, Source, class_names, original_files, splits_from_train

CLASSES = class_names("oxford_iiit_pet")
FILES = IMAGES, ANNOTATIONS = original_files("oxford_iiit_pet")


def read(raw: Path) -> dict[SplitName, Examples]:
    """Read the splits; train800 and val200 come from trainval.txt, val200 from behind its first 80 %."""
    images, annotations = IMAGES.find(raw), ANNOTATIONS.find(raw)
    trainval = _listed(annotations / "trainval.txt", images)
    test = _listed(annotations / "test.txt", images)
    splits = splits_from_train(trainval, test, val_percent=80)
    require_files(images / key for examples in splits.values() for key in examples.keys)
    return splits


def _listed(path: Path, images: Path) -> Examples:
    """Parse lines `NAME CLASS SPECIES BREED`, where classes count from 1; the key is `NAME.jpg`."""
    keys, labels = [], []
    for line in lines(path):
        parts = line.split(" ")
        if len(parts) != 4:
            raise DataError(f"{path}: expected `NAME CLASS SPECIES BREED`, found {line[:80]!r}")
        keys.append(f"{parts[0]}.jpg")
        labels.append(number(parts[1], 1, len(CLASSES), f"{path}: {line}") - 1)
    return Examples(keys, labels, lambda i: images / keys[i])


SOURCES = (Source("oxford_iiit_pet", "oxford_iiit_pet", FILES, CLASSES, read),)
