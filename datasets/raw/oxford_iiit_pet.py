"""Oxford-IIIT Pet (tensorflow/datasets datasets/oxford_iiit_pet, version 3.2.0)."""

from pathlib import Path

from ..task import DataError, SplitName
from .files import lines, number, require
from .source import Examples, RawFile, Source, first_1000, tfds_order

CLASSES = tuple(
    """\
Abyssinian american_bulldog american_pit_bull_terrier basset_hound beagle Bengal Birman Bombay boxer
British_Shorthair chihuahua Egyptian_Mau english_cocker_spaniel english_setter german_shorthaired great_pyrenees
havanese japanese_chin keeshond leonberger Maine_Coon miniature_pinscher newfoundland Persian pomeranian pug
Ragdoll Russian_Blue saint_bernard samoyed scottish_terrier shiba_inu Siamese Sphynx staffordshire_bull_terrier
wheaten_terrier yorkshire_terrier""".split()  # noqa: SIM905 - a list would take many lines
)
"""TFDS's order, which is that of the numbers in the lists."""
PLACE = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
# SHA-256: tensorflow/datasets datasets/oxford_iiit_pet/checksums.tsv
IMAGES = RawFile("images", f"{PLACE}/images.tar.gz", "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d")
ANNOTATIONS = RawFile(
    "annotations",
    f"{PLACE}/annotations.tar.gz",
    "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
)


def read(raw: Path) -> dict[SplitName, Examples]:
    """train800 and val200 come from trainval.txt, the latter behind its first 80 % (rounded down)."""
    images, annotations = IMAGES.find(raw), ANNOTATIONS.find(raw)
    trainval = _listed(annotations / "trainval.txt", images)
    test = _listed(annotations / "test.txt", images)
    first = first_1000(trainval, tfds_order(trainval.keys, "train"), len(trainval) * 80 // 100)
    splits: dict[SplitName, Examples] = {**first, "test": test.take(tfds_order(test.keys, "test"))}
    require(images / key for examples in splits.values() for key in examples.keys)
    return splits


def _listed(path: Path, images: Path) -> Examples:
    """Lines `Abyssinian_100 1 1 1`: the image, its class from 1, species and breed; the key is `Abyssinian_100.jpg`."""
    keys, labels = [], []
    for line in lines(path):
        parts = line.split(" ")
        if len(parts) != 4:
            raise DataError(f"{path}: expected `NAME CLASS SPECIES BREED`, found {line[:80]!r}")
        keys.append(f"{parts[0]}.jpg")
        labels.append(number(parts[1], 1, len(CLASSES), f"{path}: {line}") - 1)
    return Examples(keys, labels, lambda i: images / keys[i])


SOURCES = (Source("oxford_iiit_pet", "oxford_iiit_pet", (IMAGES, ANNOTATIONS), CLASSES, read),)
