"""Small NORB: binary matrices with 24,300 stereo pairs in the training and as many in the testing files
(format: https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/).

VTAB uses TFDS's `image`, which is the first camera's of each pair (tensorflow/datasets
image_classification/smallnorb.py: `"image": image[0], "image2": image[1]`), grey.  A key is the row.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from ..task import DataError, SplitName
from .gunzip import gunzipped
from .source import Examples, RawFile, Source, tfds_order

URL = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
ROWS = 24_300
KINDS = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}
"""The first four bytes, and what the matrix consists of."""
ELEVATION, AZIMUTH = 1, 2
"""Columns of the info matrix: elevations are 0 to 8, azimuths 0, 2, ... 34."""
STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training-",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing-",
}
SHA256 = {  # tensorflow/datasets url_checksums/smallnorb.txt
    ("train", "dat"): "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
    ("train", "info"): "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
    ("test", "dat"): "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
    ("test", "info"): "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2",
}


def _file(part: str, kind: str) -> RawFile:
    name = f"{STEMS[part]}{kind}.mat"
    return RawFile(f"{name}.gz", f"{URL}{name}.gz", SHA256[part, kind], instead=(name,))


FILES = {key: _file(*key) for key in SHA256}


def read(raw: Path, column: int) -> Mapping[SplitName, Examples]:
    """train[:800]; test[:200] as val, and test[50%:] (VPT's src/data/vtab_datasets/smallnorb.py)."""
    train, test = _examples(raw, "train", column), _examples(raw, "test", column)
    order = tfds_order(test.keys, "test")
    return {
        "train": train.take(tfds_order(train.keys, "train")[:800]),
        "val": test.take(order[:200]),
        "test": test.take(order[len(order) // 2 :]),
    }


def _examples(raw: Path, part: str, column: int) -> Examples:
    path = FILES[part, "dat"].find(raw)
    pairs, info = _matrix(path), _matrix(FILES[part, "info"].find(raw))
    if pairs.shape != (ROWS, 2, 96, 96) or pairs.dtype != np.uint8 or info.shape != (ROWS, 4):
        raise DataError(
            f"{path} holds {pairs.dtype} {pairs.shape} and its info file {info.shape}; "
            f"small NORB has uint8 ({ROWS}, 2, 96, 96) and ({ROWS}, 4): get both again"
        )
    labels = info[:, column] // 2 if column == AZIMUTH else info[:, column]
    keys = [str(row) for row in range(ROWS)]
    return Examples(keys, labels.tolist(), lambda row: pairs[row, 0])


def _matrix(path: Path) -> np.ndarray:
    """Read from disk as it is used: kind, number of dimensions, at least three sizes, then the entries."""
    plain = gunzipped(path)
    try:
        magic, ndim = (int(number) for number in np.fromfile(plain, "<i4", 2))
        if magic not in KINDS or not 1 <= ndim <= 8:
            raise ValueError(f"it begins with {magic:#x} and {ndim} dimensions")
        shape = tuple(int(size) for size in np.fromfile(plain, "<i4", ndim, offset=8))
        return np.memmap(plain, KINDS[magic], mode="r", offset=8 + 4 * max(3, ndim), shape=shape)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{plain} cannot be read as a NORB matrix ({error}); get it again") from None


SOURCES = tuple(
    Source(task, "smallnorb", tuple(FILES.values()), class_names, partial(read, column=column))
    for task, column, class_names in (
        ("smallnorb_azi", AZIMUTH, tuple(f"azimuth {degrees}" for degrees in range(0, 360, 20))),
        ("smallnorb_ele", ELEVATION, tuple(f"elevation {degrees}" for degrees in range(30, 71, 5))),
    )
)
