"""Small NORB: binary matrices with 24,300 stereo pairs for training and as many for testing.

The format is that of https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/.  VTAB uses TFDS's `image`, the grey image of the
first camera (tensorflow/datasets image_classification/smallnorb.py: `"image": image[0], "image2": image[1]`).  A key is
the row.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from ..reading import require_regular
from ..task import DataError, SplitName
from .gunzip import gunzipped
from .source import Examples, RawFile, Source, original_files, tfds_order

ROWS = 24_300
KINDS = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}
"""Data types of a matrix by its first four bytes."""
ELEVATION, AZIMUTH = 1, 2
"""Columns of the info matrix: elevations are 0 to 8, azimuths 0, 2, ... 34."""
FILES = TRAIN_IMAGES, TRAIN_INFO, TEST_IMAGES, TEST_INFO = original_files("smallnorb")


def read(raw: Path, column: int) -> Mapping[SplitName, Examples]:
    """Read train[:800], test[:200] as val, and test[50%:] (VPT's src/data/vtab_datasets/smallnorb.py)."""
    train = _examples(raw, TRAIN_IMAGES, TRAIN_INFO, column)
    test = _examples(raw, TEST_IMAGES, TEST_INFO, column)
    order = tfds_order(test.keys, "test")
    return {
        "train": train.take(tfds_order(train.keys, "train")[:800]),
        "val": test.take(order[:200]),
        "test": test.take(order[len(order) // 2 :]),
    }


def _examples(raw: Path, images: RawFile, info_file: RawFile, column: int) -> Examples:
    path = images.find(raw)
    pairs, info = _matrix(path), _matrix(info_file.find(raw))
    if pairs.shape != (ROWS, 2, 96, 96) or pairs.dtype != np.uint8 or info.shape != (ROWS, 4):
        raise DataError(
            f"{path} holds {pairs.dtype} {pairs.shape} and its info file {info.shape}; "
            f"small NORB has uint8 ({ROWS}, 2, 96, 96) and ({ROWS}, 4): download both again"
        )
    labels = info[:, column] // 2 if column == AZIMUTH else info[:, column]
    keys = [str(row) for row in range(ROWS)]
    return Examples(keys, labels.tolist(), lambda row: pairs[row, 0])


def _matrix(path: Path) -> np.ndarray:
    """Map a matrix file: data type, number of dimensions, at least three sizes, then the entries."""
    plain = gunzipped(path)
    try:
        require_regular(plain)
        magic, ndim = (int(number) for number in np.fromfile(plain, "<i4", 2))
        if magic not in KINDS or not 1 <= ndim <= 8:
            raise ValueError(f"it begins with {magic:#x} and {ndim} dimensions")
        shape = tuple(int(size) for size in np.fromfile(plain, "<i4", ndim, offset=8))
        return np.memmap(plain, KINDS[magic], mode="r", offset=8 + 4 * max(3, ndim), shape=shape)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{plain} cannot be read as a NORB matrix ({error}); download it again") from None


SOURCES = tuple(
    Source(task, "smallnorb", FILES, class_names, partial(read, column=column))
    for task, column, class_names in (
        ("smallnorb_azi", AZIMUTH, tuple(f"azimuth {degrees}" for degrees in range(0, 360, 20))),
        ("smallnorb_ele", ELEVATION, tuple(f"elevation {degrees}" for degrees in range(30, 71, 5))),
    )
)
