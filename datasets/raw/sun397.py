"""SUN397 in TFDS's own partition (tensorflow/datasets datasets/sun397, configuration `tfds`, version 4.0.0).

TFDS does not keep the original files: images above 120,000 pixels are made smaller, and all are encoded anew.  Its
texts say JPEG quality 72, but its code gives this configuration no quality, which means OpenCV's default, 95.
"""

import io
import lzma
from pathlib import Path

import numpy as np
from PIL import Image

from ..pixels import BROKEN
from ..task import DataError, SplitName
from .files import official, require
from .opencv import content, decode, jpeg, opencv
from .source import Examples, RawFile, Source

LISTS = Path(__file__).parent / "sun397_lists"
CLASSES = tuple((LISTS / "sun397_labels.txt").read_text().split())
"""TFDS's order: `/a/abbey` and so on (sun397_lists/README.md)."""
MOST_PIXELS = 120_000
"""Height times width."""
QUALITY = 95
ARCHIVE = RawFile(
    "SUN397",
    "https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
    # tensorflow/datasets datasets/sun397/checksums.tsv
    "f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec",
)


def read(raw: Path) -> dict[SplitName, Examples]:
    """The key is the path from SUN397 on, `/a/abbey/sun_aaaulhwrhqgejnyt.jpg`; the label is the folder in it.

    The one listed file that nothing decodes, /t/track/outdoor/sun_aophkoiosslinihb.jpg, lies far behind the 800.
    """
    root = ARCHIVE.find(raw)
    splits = official(*(_listed(root, names(part)) for part in ("tr", "va", "te")))
    require(root / key[1:] for examples in splits.values() for key in examples.keys)
    return splits


def names(part: str) -> list[str]:
    """The keys in TFDS's list `tr`, `va` or `te`, in alphabetical order."""
    return lzma.decompress((LISTS / f"sun397_tfds_{part}.txt.xz").read_bytes()).decode().split()


def _listed(root: Path, keys: list[str]) -> Examples:
    numbers = {name: number for number, name in enumerate(CLASSES)}
    return Examples(keys, [numbers[key.rpartition("/")[0]] for key in keys], lambda i: prepare(root / keys[i][1:]))


def prepare(path: Path) -> bytes:
    """The JPEG that TFDS makes of an original file, which may be a JPEG, PNG, BMP or GIF whatever its name says.

    Raises:
        DataError: it cannot be read or decoded, or OpenCV is missing.
    """
    cv2 = opencv("sun397")
    data = content(path)
    image = _gif(path, data) if data.startswith(b"GIF8") else decode(cv2, path, data)
    height, width = image.shape[:2]
    if height * width > MOST_PIXELS:
        factor = np.sqrt(MOST_PIXELS / (height * width))
        image = cv2.resize(image, dsize=None, fx=factor, fy=factor)
    return jpeg(cv2, image, QUALITY)


def _gif(path: Path, data: bytes) -> np.ndarray:
    """Pixels [h, w, 3] of a GIF, red first.  TFDS decodes these few with TensorFlow, as its OpenCV could not, and goes
    on as if blue came first; its GIFs have red and blue exchanged, and so have ours."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except BROKEN as error:
        raise DataError(f"{path}: is damaged ({error}); unpack it again") from None


SOURCES = (Source("sun397", "sun397", (ARCHIVE,), CLASSES, read),)
