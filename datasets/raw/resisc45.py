"""NWPU-RESISC45 (tensorflow/datasets datasets/resisc45, version 3.0.0)."""

from pathlib import Path

from ..task import SplitName
from .files import class_folders, sixty_twenty_twenty
from .source import Examples, RawFile, Source

CLASSES = tuple(
    """\
airplane airport baseball_diamond basketball_court beach bridge chaparral church circular_farmland cloud
commercial_area dense_residential desert forest freeway golf_course ground_track_field harbor industrial_area
intersection island lake meadow medium_residential mobile_home_park mountain overpass palace parking_lot railway
railway_station rectangular_farmland river roundabout runway sea_ice ship snowberg sparse_residential stadium
storage_tank tennis_court terrace thermal_power_station wetland""".split()  # noqa: SIM905 - a list would take many lines
)
"""TFDS's order."""
ARCHIVE = RawFile(
    "NWPU-RESISC45",
    "https://gcheng-nwpu.github.io/#Datasets",
    manual="download NWPU-RESISC45.rar from the OneDrive link of that page and unpack it here (unrar x, or 7z x)",
)


def read(raw: Path) -> dict[SplitName, Examples]:
    """Files `sea_ice/sea_ice_012.jpg`, whose key is `sea_ice_sea_ice_012.jpg`."""
    return sixty_twenty_twenty(class_folders(ARCHIVE.find(raw), CLASSES))


SOURCES = (Source("resisc45", "resisc45", (ARCHIVE,), CLASSES, read),)
