"""CIFAR-100: the binary version that TFDS reads, or the Python one; both hold the same images in the same order.

The formats are those of https://www.cs.toronto.edu/~kriz/cifar.html.  A key is the row in the train or test file
(tensorflow/datasets image_classification/cifar.py).  Labels are the fine ones.
"""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..task import DataError, SplitName
from .source import Examples, RawFile, Source, first_1000, tfds_order

ROWS = {"train": 50_000, "test": 10_000}
RECORD = np.dtype([("coarse", "u1"), ("fine", "u1"), ("planes", "u1", (3, 32, 32))])
"""One image of the binary version: two labels, and the red, green and blue planes."""
FILE = RawFile(
    "cifar-100-binary",
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    # tensorflow/datasets url_checksums/cifar100.txt
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    instead=("cifar-100-python",),
)
FINE_LABELS = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard "
    "lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
    "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal "
    "shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank "
    "telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
"""`fine_label_names.txt` of the binary version, in its order."""
CLASSES = tuple(FINE_LABELS.split())


def read(raw: Path) -> Mapping[SplitName, Examples]:
    """train[:800] and the first 200 of train[90%:]; test (task_adaptation/data/cifar.py)."""
    folder = FILE.find(raw)
    train, test = _examples(folder, "train"), _examples(folder, "test")
    splits = first_1000(train, tfds_order(train.keys, "train"), len(train) * 90 // 100)
    return {**splits, "test": test.take(tfds_order(test.keys, "test"))}


def _examples(folder: Path, part: str) -> Examples:
    binary = folder / f"{part}.bin"
    planes, labels = _from_binary(binary) if binary.exists() else _from_pickle(folder / part)
    if not len(planes) == len(labels) == ROWS[part]:
        raise DataError(
            f"{folder} has {len(planes):,} {part} images and {len(labels):,} labels, CIFAR-100 has {ROWS[part]:,}; "
            "get it again"
        )
    keys = [str(row) for row in range(len(planes))]
    return Examples(keys, labels.tolist(), lambda row: planes[row].transpose(1, 2, 0))


def _from_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Planes [n, 3, 32, 32] uint8, read from disk as they are used, and labels [n]."""
    try:
        records = np.memmap(path, RECORD, mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as CIFAR's binary version ({error}); get it again") from None
    return records["planes"], records["fine"]


def _from_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        content = _Plain(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        planes = np.asarray(content[b"data"])
        if planes.dtype != np.uint8:
            raise ValueError(f"pixels are {planes.dtype}")
        return planes.reshape(-1, 3, 32, 32), np.asarray(content[b"fine_labels"], np.int64)
    except FileNotFoundError:
        raise DataError(f"{path.parent} has neither {path.name}.bin nor {path.name}; get it again") from None
    except DataError:
        raise
    except Exception as error:  # damaged pickles raise whatever the opcode at hand runs into
        raise DataError(f"{path} cannot be read as CIFAR's Python version ({error!r}); get it again") from None


class _Plain(pickle.Unpickler):
    """Makes numpy arrays, texts, numbers and containers; a pickle that asks for more is refused, not run."""

    ALLOWED = {
        # numpy moved `_reconstruct` in 2.0; files name the module of the numpy that wrote them
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == ("_codecs", "encode"):
            return _latin1  # how Python 3 writes bytes in the old protocols
        if (module_name, global_name) not in self.ALLOWED:
            raise DataError(
                f"a pickle asks for {module_name}.{global_name}, which CIFAR-100 does not need: it was not run. "
                f"Get {FILE.url}"
            )
        return self.ALLOWED[module_name, global_name]


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise DataError(f"a pickle asks for the encoding {encoding!r}, which CIFAR-100 does not need")
    return text.encode("latin1")


SOURCES = (Source("cifar", "cifar100", (FILE,), CLASSES, read),)
