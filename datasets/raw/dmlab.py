"""DMLab frames, classified by the distance of the nearest reward.

The frames are those of tensorflow/datasets image_classification/dmlab.py, version 2.0.1.  The classes are
{close, far, very far} x {positive, negative reward}.  Their order is not published.
"""

from pathlib import Path

from ..task import DataError, SplitName
from .source import Examples, Source, official_splits, original_files
from .tfrecord import Record, features, records

CLASSES = tuple("012345")
FILES = original_files("dmlab")


def read(raw: Path) -> dict[SplitName, Examples]:
    """Read files `dmlab-train.tfrecord...`; a key is the file name in the record, `video_600_5_976.jpg`."""
    root = FILES[0].find(raw)
    return official_splits(_recorded(root, "train"), _recorded(root, "validation"), _recorded(root, "test"))


def _recorded(root: Path, split: str) -> Examples:
    paths = sorted(root.glob(f"dmlab-{split}.tfrecord*"))
    if not paths:
        raise DataError(f"there is no dmlab-{split}.tfrecord... in {root}; unpack {FILES[0].url} there")
    found = [(*_example(record, data)[:2], record) for path in paths for record, data in records(path)]
    keys = [key for key, _, _ in found]
    return Examples(keys, [label for _, label, _ in found], lambda i: _example(found[i][2], found[i][2].data())[2])


def _example(record: Record, data: bytes) -> tuple[str, int, bytes]:
    """Return file name, label and encoded image of a record."""
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
            f"{record.path}: the example at byte {record.start} is not a frame with filename, label and image "
            f"({error}); unpack the archive again"
        ) from None


SOURCES = (Source("dmlab", "dmlab", FILES, CLASSES, read),)
