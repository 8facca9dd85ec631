"""CIFAR-100: the binary version that TFDS reads, or the Python version with the same images in the same order.

The formats are those of https://www.cs.toronto.edu/~kriz/cifar.html.  A key is the row in the train or test file
(tensorflow/datasets image_classification/cifar.py).  Labels are the fine labels.
"""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..reading import LARGEST_FILE, read_regular, require_regular
from ..task import DataError, SplitName
from .source import Examples, Source, class_names, original_files, splits_from_train

ROWS = {"train": 50_000, "test": 10_000}
RECORD = np.dtype([("coarse", "u1"), ("fine", "u1"), ("planes", "u1", (3, 32, 32))])
"""An image of the binary version: two labels, and the red, green and blue planes."""
FILES = original_files("cifar100")
CLASSES = class_names("cifar100")


def read(raw: Path) -> Mapping[SplitName, Examples]:
    """Read train[:800], the first 200 of train[90%:] and test (task_adaptation/data/cifar.py)."""
    folder = FILES[0].find(raw)
    return splits_from_train(_examples(folder, "train"), _examples(folder, "test"), val_percent=90)


def _examples(folder: Path, part: str) -> Examples:
    binary = folder / f"{part}.bin"
    planes, labels = _from_binary(binary) if binary.exists() else _from_pickle(folder / part)
    if not len(planes) == len(labels) == ROWS[part]:
        raise DataError(
            f"{folder} has {len(planes):,} {part} images and {len(labels):,} labels, CIFAR-100 has {ROWS[part]:,}; "
            "download it again"
        )
    keys = [str(row) for row in range(len(planes))]
    return Examples(keys, labels.tolist(), lambda row: planes[row].transpose(1, 2, 0))


def _from_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return planes [n, 3, 32, 32] uint8, mapped from disk, and labels [n]."""
    try:
        require_regular(path)
        records = np.memmap(path, RECORD, mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as CIFAR's binary version ({error}); download it again") from None
    return records["planes"], records["fine"]


def _from_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        content = _Plain(io.BytesIO(read_regular(path, LARGEST_FILE)), encoding="bytes").load()
        planes = np.asarray(content[b"data"])
        if planes.dtype != np.uint8:
            raise ValueError(f"pixels are {planes.dtype}")
        return planes.reshape(-1, 3, 32, 32), np.asarray(content[b"fine_labels"], np.int64)
    except FileNotFoundError:
        raise DataError(f"{path.parent} has neither {path.name}.bin nor {path.name}; download it again") from None
    except DataError:
        raise
    except Exception as error:  # damaged pickles raise many types
        raise DataError(f"{path} cannot be read as CIFAR's Python version ({error!r}); download it again") from None


class _Plain(pickle.Unpickler):
    """Load only numpy arrays, texts, numbers and containers; refuse any other global, so that no code can run."""

    ALLOWED = {
        # numpy 2.0 moved `_reconstruct`; a file names the module of the numpy that wrote it
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == ("_codecs", "encode"):
            return _latin1  # Python 3 writes bytes like this in old protocols
        if (module_name, global_name) not in self.ALLOWED:
            raise DataError(
                f"the pickle was not loaded: it asks for {module_name}.{global_name}, which CIFAR-100 does not need; "
                f"get {FILES[0].url}"
            )
        return self.ALLOWED[module_name, global_name]


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise DataError(f"the pickle has an unexpected encoding {encoding!r}; get {FILES[0].url}")
    return text.encode("latin1")


SOURCES = (Source("cifar", "cifar100", FILES, CLASSES, read),)
