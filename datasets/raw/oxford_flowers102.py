"""Oxford Flowers 102 (tensorflow/datasets datasets/oxford_flowers102, version 2.1.1)."""

from pathlib import Path

import numpy as np

from ..task import DataError, SplitName
from .files import official, require
from .source import Examples, RawFile, Source

CLASSES = tuple(
    """\
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid,
bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris,
globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, pincushion flower,
fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke,
sweet william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya,
cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia,
bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia, wild pansy, primula,
sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink-yellow dahlia?, cautleya spicata,
japanese anemone, black-eyed susan, silverbush, californian poppy, osteospermum, spring crocus, bearded iris,
windflower, tree poppy, gazania, azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus,
toad lily, anthurium, frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen,
watercress, canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea, camellia, mallow,
mexican petunia, bromelia, blanket flower, trumpet creeper, blackberry lily""".replace("\n", " ").split(", ")
)
"""TFDS's order, which is that of the numbers in imagelabels.mat."""
PLACE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
# SHA-256: tensorflow/datasets datasets/oxford_flowers102/checksums.tsv
IMAGES = RawFile("jpg", f"{PLACE}/102flowers.tgz", "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246")
LABELS = RawFile(
    "imagelabels.mat",
    f"{PLACE}/imagelabels.mat",
    "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
)
SPLITS = RawFile("setid.mat", f"{PLACE}/setid.mat", "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd")


def read(raw: Path) -> dict[SplitName, Examples]:
    """The key is `image_00001.jpg`; numbers of images and of labels count from 1 in the files."""
    images = IMAGES.find(raw)
    labels = _row(LABELS.find(raw), "labels", len(CLASSES))

    def numbered(name: str) -> Examples:
        numbers = _row(SPLITS.find(raw), name, len(labels))
        keys = [f"image_{n:05d}.jpg" for n in numbers]
        return Examples(keys, [int(labels[n - 1]) - 1 for n in numbers], lambda i: images / keys[i])

    splits = official(numbered("trnid"), numbered("valid"), numbered("tstid"))
    require(images / key for examples in splits.values() for key in examples.keys)
    return splits


def _row(path: Path, name: str, last: int) -> np.ndarray:
    """The integers, from 1 to `last`, of an array [1, n] in a MATLAB file."""
    from scipy.io import loadmat  # here, since it takes a while and few need it

    try:
        row = loadmat(path)[name].reshape(-1).astype(np.int64)
    except KeyError:
        raise DataError(f"{path} holds no array {name!r}; get it again from {PLACE}") from None
    except Exception as error:  # damaged files raise whatever scipy's reader runs into
        raise DataError(f"{path} cannot be read as a MATLAB file ({error}); get it again from {PLACE}") from None
    if not row.size or row.min() < 1 or row.max() > last:
        raise DataError(f"{path}: array {name!r} must hold numbers from 1 to {last}")
    return row


SOURCES = (Source("oxford_flowers102", "oxford_flowers102", (IMAGES, LABELS, SPLITS), CLASSES, read),)
