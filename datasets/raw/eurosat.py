"""EuroSAT, RGB (tensorflow/datasets image_classification/eurosat.py, configuration `rgb`, version 2.0.0)."""

from pathlib import Path

from ..task import SplitName
from .files import class_folders
from .source import Examples, Source, class_names, original_files, splits_60_20_20

CLASSES = class_names("eurosat")
FILES = original_files("eurosat")


def read(raw: Path) -> dict[SplitName, Examples]:
    """Read files such as `River/River_12.jpg`, whose key is `River_River_12.jpg`."""
    return splits_60_20_20(class_folders(FILES[0].find(raw), CLASSES))


SOURCES = (Source("eurosat", "eurosat", FILES, CLASSES, read),)
