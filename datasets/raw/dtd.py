"""DTD, the first of its ten partitions (tensorflow/datasets image_classification/dtd.py, version 3.0.1)."""

from pathlib import Path

from ..task import SplitName
from .files import class_id, lines, require_files
from .source import Examples, Source, class_names, official_splits, original_files

CLASSES = class_names("dtd")
FILES = original_files("dtd")


def read(raw: Path) -> dict[SplitName, Examples]:
    """Read the lists; a key is a line such as `banded/banded_0002.jpg`, and its folder is the class."""
    root = FILES[0].find(raw)

    def listed(name: str) -> Examples:
        path = root / "labels" / name
        keys = lines(path)
        labels = [class_id(key.split("/")[0], CLASSES, f"{path}: {key}") for key in keys]
        return Examples(keys, labels, lambda i: root / "images" / keys[i])

    splits = official_splits(listed("train1.txt"), listed("val1.txt"), listed("test1.txt"))
    require_files(root / "images" / key for examples in splits.values() for key in examples.keys)
    return splits


SOURCES = (Source("dtd", "dtd", FILES, CLASSES, read),)
