"""DTD, first of its ten partitions (tensorflow/datasets image_classification/dtd.py, version 3.0.1)."""

from pathlib import Path

from ..task import SplitName
from .files import class_id, lines, official, require
from .source import Examples, RawFile, Source

CLASSES = tuple(
    """\
banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous flecked
freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted meshed paisley
perforated pitted pleated polka-dotted porous potholed scaly smeared spiralled sprinkled stained stratified
striped studded swirly veined waffled woven wrinkled zigzagged""".split()  # noqa: SIM905 - a list would take many lines
)
"""TFDS's order (image_classification/dtd_key_attributes.txt)."""
ARCHIVE = RawFile(
    "dtd",
    "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
    # tensorflow/datasets url_checksums/dtd.txt
    "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
)


def read(raw: Path) -> dict[SplitName, Examples]:
    """The key is the line of the list, `banded/banded_0002.jpg`; the label is the folder in it."""
    root = ARCHIVE.find(raw)

    def listed(name: str) -> Examples:
        path = root / "labels" / name
        keys = lines(path)
        labels = [class_id(key.split("/")[0], CLASSES, f"{path}: {key}") for key in keys]
        return Examples(keys, labels, lambda i: root / "images" / keys[i])

    splits = official(listed("train1.txt"), listed("val1.txt"), listed("test1.txt"))
    require(root / "images" / key for examples in splits.values() for key in examples.keys)
    return splits


SOURCES = (Source("dtd", "dtd", (ARCHIVE,), CLASSES, read),)
