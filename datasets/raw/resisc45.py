"""NWPU-RESISC45 (tensorflow/datasets datasets/resisc45, version 3.0.0)."""

from pathlib import Path

from ..task import SplitName
from .files import class_folders
from .source import Examples, Source, original_files, splits_60_20_20

CLASSES = tuple(
    """\
airplane airport baseball_diamond basketball_court beach bridge chaparral church circular_farmland cloud
commercial_area dense_residential desert forest freeway golf_course ground_track_field harbor industrial_area
intersection island lake meadow medium_residential mobile_home_park mountain overpass palace parking_lot railway
railway_station rectangular_farmland river roundabout runway sea_ice ship snowberg sparse_residential stadium
storage_tank tennis_court terrace thermal_power_station wetland""".split()  # noqa: SIM905 - a list would take many lines
)
"""Class names in TFDS's order."""
FILES = original_files("resisc45")


def read(raw: Path) -> dict[SplitName, Examples]:
    """Read files such as `sea_ice/sea_ice_012.jpg`, whose key is `sea_ice_sea_ice_012.jpg`."""
    return splits_60_20_20(class_folders(FILES[0].find(raw), CLASSES))


SOURCES = (Source("resisc45", "resisc45", FILES, CLASSES, read),)
