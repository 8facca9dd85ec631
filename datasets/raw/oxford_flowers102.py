"""Oxford Flowers 102 (tensorflow/datasets datasets/oxford_flowers102, version 2.1.1)."""

from pathlib import Path

import numpy as np

from ..task import DataError, SplitName
from .files import load_mat, require_files
from .source import Examples, Source, class_names, official_splits, original_files

CLASSES = class_names("oxford_flowers102")
FILES = IMAGES, LABELS, SPLITS = original_files("oxford_flowers102")


def read(raw: Path) -> dict[SplitName, Examples]:
    """Read the splits; a key is `image_00001.jpg`.  The files count images and labels from 1."""
    images = IMAGES.find(raw)
    labels = _row(LABELS.find(raw), "labels", len(CLASSES))

    def numbered(name: str) -> Examples:
        numbers = _row(SPLITS.find(raw), name, len(labels))
        keys = [f"image_{n:05d}.jpg" for n in numbers]
        return Examples(keys, [int(labels[n - 1]) - 1 for n in numbers], lambda i: images / keys[i])

    splits = official_splits(numbered("trnid"), numbered("valid"), numbered("tstid"))
    require_files(images / key for examples in splits.values() for key in examples.keys)
    return splits


def _row(path: Path, name: str, last: int) -> np.ndarray:
    """Read integers from 1 to `last` from an array [1, n] of a MATLAB file."""
    row = load_mat(path, name)[0].reshape(-1).astype(np.int64)
    if not row.size or row.min() < 1 or row.max() > last:
        raise DataError(f"{path}: array {name!r} must hold numbers from 1 to {last}; download it again")
    return row


SOURCES = (Source("oxford_flowers102", "oxford_flowers102", FILES, CLASSES, read),)
