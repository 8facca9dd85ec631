"""DMLab frames by the distance of what gives reward (tensorflow/datasets image_classification/dmlab.py, version 2.0.1).

The classes are {close, far, very far} x {positive, negative reward}; which number is which is not published.
"""

from pathlib import Path

from ..task import DataError, SplitName
from .files import official
from .source import Examples, RawFile, Source
from .tfrecord import Record, features, records

CLASSES = tuple("012345")
ARCHIVE = RawFile(
    "dmlab",
    "https://storage.googleapis.com/dmlab-vtab/dmlab.tar.gz",
    # tensorflow/datasets url_checksums/dmlab.txt
    "638b18fa69a5d61bbc310cd0b87ac603a39f41de0fdb07b6e77de274a24480a4",
)


def read(raw: Path) -> dict[SplitName, Examples]:
    """Files `dmlab-train.tfrecord...`; an example's key is its file name, `video_600_5_976.jpg`."""
    root = ARCHIVE.find(raw)
    return official(_recorded(root, "train"), _recorded(root, "validation"), _recorded(root, "test"))


def _recorded(root: Path, split: str) -> Examples:
    paths = sorted(root.glob(f"dmlab-{split}.tfrecord*"))
    if not paths:
        raise DataError(f"there is no dmlab-{split}.tfrecord... in {root}; unpack {ARCHIVE.url} there")
    keys: list[str] = []
    labels: list[int] = []
    places: list[Record] = []
    for path in paths:
        for place, data in records(path):
            key, label, _ = _example(place, data)
            keys.append(key)
            labels.append(label)
            places.append(place)
    return Examples(keys, labels, lambda i: _example(places[i], places[i].data())[2])


def _example(place: Record, data: bytes) -> tuple[str, int, bytes]:
    """File name, label and encoded image of a record."""
    try:
        found = features(data)
        (name,), (label,), (image,) = found["filename"], found["label"], found["image"]
        if not (isinstance(name, bytes) and isinstance(label, int) and isinstance(image, bytes)):
            raise ValueError("a feature of another type")
        if not 0 <= label < len(CLASSES):
            raise ValueError(f"label {label}")
        return name.decode(), label, image
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{place.path}: the example at byte {place.start} is no frame with filename, label and image ({error})"
        ) from None


SOURCES = (Source("dmlab", "dmlab", (ARCHIVE,), CLASSES, read),)
