"""OpenCV, with which TFDS prepares the images of some tasks; an optional dependency."""

from pathlib import Path
from typing import Any

import numpy as np

from ..task import DataError

COLOUR = 3
"""IMREAD_COLOR | IMREAD_ANYDEPTH, the flags with which TFDS decodes."""


def opencv(task: str) -> Any:
    """The module cv2.

    Raises:
        DataError: it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise DataError(f'{task} is prepared with OpenCV; install it: pip install "vtab-peft[data]"') from None
    return cv2


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def decode(cv2: Any, path: Path, data: bytes) -> np.ndarray:
    """Pixels [height, width, 3] uint8, blue first, of the image in `data`, which messages call `path`."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), COLOUR) if data else None
    if image is None:
        raise DataError(f"{path}: is no image that OpenCV can decode; unpack it again")
    return image


def jpeg(cv2: Any, image: np.ndarray, quality: int) -> bytes:
    """A JPEG file of uint8 pixels [height, width, 3], blue first."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
