"""SVHN, cropped digits: two MATLAB files with X [32, 32, 3, n] uint8 and y [n, 1], where 10 means the digit 0.

The files are those of http://ufldl.stanford.edu/housenumbers/.  A key is the row (tensorflow/datasets
image_classification/svhn.py).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..task import DataError, SplitName
from .files import load_mat
from .source import Examples, Source, original_files, splits_from_train

ROWS = {"train": 73_257, "test": 26_032}
FILES = TRAIN, TEST = original_files("svhn")


def read(raw: Path) -> Mapping[SplitName, Examples]:
    """Read train[:800], the first 200 of train[90%:] and test (task_adaptation/data/svhn.py)."""
    return splits_from_train(_examples(TRAIN.find(raw), "train"), _examples(TEST.find(raw), "test"), val_percent=90)


def _examples(path: Path, part: str) -> Examples:
    pixels, digits = load_mat(path, "X", "y")
    digits = digits.ravel()
    if pixels.shape != (32, 32, 3, ROWS[part]) or pixels.dtype != np.uint8 or digits.shape != (ROWS[part],):
        raise DataError(
            f"{path} has X {pixels.dtype} {pixels.shape} and {len(digits):,} labels, "
            f"SVHN has X uint8 (32, 32, 3, {ROWS[part]}); download it again"
        )
    if digits.min() < 1 or digits.max() > 10:
        raise DataError(f"{path} has labels outside 1 to 10 (10 means 0); download it again")
    keys = [str(row) for row in range(ROWS[part])]
    return Examples(keys, (digits % 10).tolist(), lambda row: pixels[..., row])


SOURCES = (Source("svhn", "svhn", FILES, tuple("0123456789"), read),)
