"""PatchCamelyon: for each split one HDF5 file with x [n, 96, 96, 3] uint8 and one with y [n, 1, 1, 1]
(https://github.com/basveeling/pcam), published gzipped.  Keys are `train_5`, `valid_5`, `test_5`
(tensorflow/datasets image_classification/patch_camelyon.py), and TFDS calls the second split "validation".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..task import DataError, SplitName
from .gunzip import gunzipped
from .source import Examples, RawFile, Source, tfds_order

URL = "https://zenodo.org/records/2546921/files/"
ROWS = {"train": 262_144, "valid": 32_768, "test": 32_768}
SHA256 = {  # tensorflow/datasets url_checksums/patch_camelyon.txt
    "train_x": "d619e741468a7ab35c7e4a75e6821b7e7e6c9411705d45708f2a0efc8960656c",
    "train_y": "b74126d2c01b20d3661f9b46765d29cf4e4fba6faba29c8e0d09d406331ab75a",
    "valid_x": "f82ee1670d027b4ec388048d9eabc2186b77c009655dae76d624c0ecb053ccb2",
    "valid_y": "ce1ae30f08feb468447971cfd0472e7becd0ad96d877c64120c72571439ae48c",
    "test_x": "79174c2201ad521602a5888be8f36ee10875f37403dd3f2086caf2182ef87245",
    "test_y": "0a522005fccc8bbd04c5a117bfaf81d8da2676f03a29d7499f71d0a0bd6068ef",
}


def _file(part: str) -> RawFile:
    name = f"camelyonpatch_level_2_split_{part}.h5"
    return RawFile(f"{name}.gz", f"{URL}{name}.gz", SHA256[part], instead=(name,))


FILES = {part: _file(part) for part in SHA256}


def read(raw: Path) -> Mapping[SplitName, Examples]:
    """train[:800], validation[:200], test (task_adaptation/data/patch_camelyon.py)."""
    train, valid, test = (_examples(raw, part) for part in ("train", "valid", "test"))
    return {
        "train": train.take(tfds_order(train.keys, "train")[:800]),
        "val": valid.take(tfds_order(valid.keys, "validation")[:200]),
        "test": test.take(tfds_order(test.keys, "test")),
    }


def _examples(raw: Path, part: str) -> Examples:
    """Images stay on disk until they are asked for."""
    path = FILES[f"{part}_x"].find(raw)
    images = _dataset(path, "x")
    labels = np.asarray(_dataset(FILES[f"{part}_y"].find(raw), "y")).ravel()
    if images.shape != (ROWS[part], 96, 96, 3) or images.dtype != np.uint8 or len(labels) != ROWS[part]:
        raise DataError(
            f"{path} has x {images.dtype} {images.shape} and {len(labels):,} labels, "
            f"PatchCamelyon has x uint8 ({ROWS[part]}, 96, 96, 3); get it again"
        )
    keys = [f"{part}_{row}" for row in range(ROWS[part])]
    return Examples(keys, labels.tolist(), lambda row: images[row])


def _dataset(path: Path, name: str) -> Any:
    try:
        import h5py
    except ImportError:
        raise DataError('PatchCamelyon is HDF5; to read it: pip install "vtab-peft[data]"') from None
    plain = gunzipped(path)
    try:
        return h5py.File(plain, "r")[name]
    except (OSError, KeyError) as error:
        raise DataError(f"{plain} cannot be read as HDF5 with a dataset {name!r} ({error}); get it again") from None


CLASSES = ("no tumour tissue in the centre", "tumour tissue in the centre")
SOURCES = (Source("patch_camelyon", "patch_camelyon", tuple(FILES.values()), CLASSES, read),)
