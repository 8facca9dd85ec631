"""NWPU-RESISC45 (tensorflow/datasets datasets/resisc45, version 3.0.0)."""

from pathlib import Path

from ..task import SplitName
from .files import class_folders
from .source import Examples, Source, class_names, original_files, splits_60_20_20

CLASSES = class_names("resisc45")
FILES = original_files("resisc45")


def read(raw: Path) -> dict[SplitName, Examples]:
    """Read files such as `sea_ice/sea_ice_012.jpg`, whose key is `sea_ice_sea_ice_012.jpg`."""
    return splits_60_20_20(class_folders(FILES[0].find(raw), CLASSES))


SOURCES = (Source("resisc45", "resisc45", FILES, CLASSES, read),)
