"""SUN397 in TFDS's own partition (tensorflow/datasets datasets/sun397, configuration `tfds`, version 4.0.0).

TFDS does not keep the original files: it shrinks images above 120,000 pixels and encodes all of them again.  Its
documentation says JPEG quality 72, but its code passes no quality here, so OpenCV's default of 95 applies.
"""

import io
import lzma
from pathlib import Path

import numpy as np
from PIL import Image

from ..pixels import DECODE_ERRORS
from ..reading import import_optional, read_bytes
from ..task import DataError, SplitName
from .files import decode, jpeg, require_files
from .source import Examples, Source, official_splits, original_files

LISTS = Path(__file__).parent / "sun397_lists"
CLASSES = tuple((LISTS / "sun397_labels.txt").read_text().split())
"""Class names in TFDS's order: `/a/abbey` and so on (sun397_lists/README.md)."""
MOST_PIXELS = 120_000
"""Largest height x width."""
QUALITY = 95
FILES = original_files("sun397")


def read(raw: Path) -> dict[SplitName, Examples]:
    """Read the splits; a key is the path below SUN397, `/a/abbey/sun_aaaulhwrhqgejnyt.jpg`; its folder is the class.

    The only listed file that cannot be decoded, /t/track/outdoor/sun_aophkoiosslinihb.jpg, is not among the 800.
    """
    root = FILES[0].find(raw)
    splits = official_splits(*(_listed(root, names(part)) for part in ("tr", "va", "te")))
    require_files(root / key[1:] for examples in splits.values() for key in examples.keys)
    return splits


def names(part: str) -> list[str]:
    """Return the keys of TFDS's list `tr`, `va` or `te` in alphabetical order."""
    return lzma.decompress((LISTS / f"sun397_tfds_{part}.txt.xz").read_bytes()).decode().split()


def _listed(root: Path, keys: list[str]) -> Examples:
    numbers = {name: number for number, name in enumerate(CLASSES)}
    return Examples(keys, [numbers[key.rpartition("/")[0]] for key in keys], lambda i: prepare(root / keys[i][1:]))


def prepare(path: Path) -> bytes:
    """Return the JPEG that TFDS makes of an original file: a JPEG, PNG, BMP or GIF, whatever its name says.

    Raises:
        DataError: the file cannot be read or decoded, or OpenCV is missing.
    """
    cv2 = import_optional("cv2", "sun397")
    data = read_bytes(path)
    image = _gif(path, data) if data.startswith(b"GIF8") else decode(cv2, path, data)
    height, width = image.shape[:2]
    if height * width > MOST_PIXELS:
        factor = np.sqrt(MOST_PIXELS / (height * width))
        image = cv2.resize(image, dsize=None, fx=factor, fy=factor)
    return jpeg(cv2, image, QUALITY)


def _gif(path: Path, data: bytes) -> np.ndarray:
    """Decode a GIF to RGB pixels [h, w, 3].

    TFDS decodes GIFs with TensorFlow and then treats the RGB pixels as BGR.  Red and blue are therefore exchanged in
    its images, and also here.
    """
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except DECODE_ERRORS as error:
        raise DataError(f"{path}: is damaged ({error}); unpack it again") from None


SOURCES = (Source("sun397", "sun397", FILES, CLASSES, read),)
