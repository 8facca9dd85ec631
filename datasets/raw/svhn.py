"""SVHN, cropped digits: two MATLAB files with X [32, 32, 3, n] uint8 and y [n, 1], where 10 means the digit 0
(http://ufldl.stanford.edu/housenumbers/).  A key is the row (tensorflow/datasets image_classification/svhn.py).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..task import DataError, SplitName
from .source import Examples, RawFile, Source, first_1000, tfds_order

URL = "http://ufldl.stanford.edu/housenumbers/"
ROWS = {"train": 73_257, "test": 26_032}
FILES = {  # SHA-256: tensorflow/datasets url_checksums/svhn_cropped.txt
    "train": RawFile(
        "train_32x32.mat",
        f"{URL}train_32x32.mat",
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    "test": RawFile(
        "test_32x32.mat",
        f"{URL}test_32x32.mat",
        "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
}


def read(raw: Path) -> Mapping[SplitName, Examples]:
    """train[:800] and the first 200 of train[90%:]; test (task_adaptation/data/svhn.py)."""
    train, test = _examples(raw, "train"), _examples(raw, "test")
    splits = first_1000(train, tfds_order(train.keys, "train"), len(train) * 90 // 100)
    return {**splits, "test": test.take(tfds_order(test.keys, "test"))}


def _examples(raw: Path, part: str) -> Examples:
    path = FILES[part].find(raw)
    pixels, digits = _load(path)
    if pixels.shape != (32, 32, 3, ROWS[part]) or pixels.dtype != np.uint8 or digits.shape != (ROWS[part],):
        raise DataError(
            f"{path} has X {pixels.dtype} {pixels.shape} and {len(digits):,} labels, "
            f"SVHN has X uint8 (32, 32, 3, {ROWS[part]}); get it again"
        )
    if digits.min() < 1 or digits.max() > 10:
        raise DataError(f"{path} has labels outside 1 to 10 (10 means 0); get it again")
    keys = [str(row) for row in range(ROWS[part])]
    return Examples(keys, (digits % 10).tolist(), lambda row: pixels[..., row])


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """X and the labels [n]."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=["X", "y"])
        return content["X"], content["y"].ravel()
    except Exception as error:  # damaged files raise whatever scipy's reader runs into
        raise DataError(f"{path} cannot be read as a MATLAB 5 file with X and y ({error!r}); get it again") from None


SOURCES = (Source("svhn", "svhn", tuple(FILES.values()), tuple("0123456789"), read),)
