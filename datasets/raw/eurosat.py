"""EuroSAT, RGB (tensorflow/datasets image_classification/eurosat.py, configuration `rgb`, version 2.0.0)."""

from pathlib import Path

from ..task import SplitName
from .files import class_folders, sixty_twenty_twenty
from .source import Examples, RawFile, Source

CLASSES = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)
"""TFDS's order."""
ARCHIVE = RawFile(
    "2750",
    "https://madm.dfki.de/files/sentinel/EuroSAT.zip",
    # tensorflow/datasets url_checksums/eurosat.txt
    "8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
    instead=("EuroSAT_RGB",),  # what EuroSAT_RGB.zip of https://zenodo.org/records/7711810 unpacks to
)


def read(raw: Path) -> dict[SplitName, Examples]:
    """Files `River/River_12.jpg`, whose key is `River_River_12.jpg`."""
    return sixty_twenty_twenty(class_folders(ARCHIVE.find(raw), CLASSES))


SOURCES = (Source("eurosat", "eurosat", (ARCHIVE,), CLASSES, read),)
