"""PatchCamelyon: per split one gzipped HDF5 file with x [n, 96, 96, 3] uint8 and one with y [n, 1, 1, 1].

The files are those of https://github.com/basveeling/pcam.  Keys are `train_5`, `valid_5`, `test_5`
(tensorflow/datasets image_classification/patch_camelyon.py), and TFDS calls the second split "validation".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..reading import import_optional
from ..task import DataError, SplitName
from .gunzip import gunzipped
from .source import Examples, Source, official_splits, original_files

ROWS = {"train": 262_144, "valid": 32_768, "test": 32_768}
FILES = original_files("patch_camelyon")
PARTS = ("train_x", "train_y", "valid_x", "valid_y", "test_x", "test_y")
"""The parts in the order of `FILES`."""


def read(raw: Path) -> Mapping[SplitName, Examples]:
    """Read train[:800], validation[:200] and test (task_adaptation/data/patch_camelyon.py)."""
    return official_splits(*(_examples(raw, part) for part in ("train", "valid", "test")))


def _examples(raw: Path, part: str) -> Examples:
    """Open one split; images stay on disk until they are used."""
    images_file, labels_file = (FILES[PARTS.index(f"{part}_{kind}")] for kind in "xy")
    path = images_file.find(raw)
    images = _dataset(path, "x")
    labels = np.asarray(_dataset(labels_file.find(raw), "y")).ravel()
    if images.shape != (ROWS[part], 96, 96, 3) or images.dtype != np.uint8 or len(labels) != ROWS[part]:
        raise DataError(
            f"{path} has x {images.dtype} {images.shape} and {len(labels):,} labels, "
            f"PatchCamelyon has x uint8 ({ROWS[part]}, 96, 96, 3); download it again"
        )
    keys = [f"{part}_{row}" for row in range(ROWS[part])]
    return Examples(keys, labels.tolist(), lambda row: images[row])


def _dataset(path: Path, name: str) -> Any:
    h5py = import_optional("h5py", "patch_camelyon")
    plain = gunzipped(path)
    try:
        return h5py.File(plain, "r")[name]
    except (OSError, KeyError) as error:
        raise DataError(f"{plain} is not HDF5 with a dataset {name!r} ({error}); download it again") from None


CLASSES = ("no tumour tissue in the centre", "tumour tissue in the centre")
SOURCES = (Source("patch_camelyon", "patch_camelyon", FILES, CLASSES, read),)
