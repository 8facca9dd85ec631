"""OpenCV, with which TFDS prepares the images of some tasks; an optional dependency."""

from pathlib import Path
from typing import Any

import numpy as np

from ..task import DataError

COLOUR = 3
"""IMREAD_COLOR | IMREAD_ANYDEPTH, the flags with which TFDS decodes."""


def decode(cv2: Any, path: Path, data: bytes) -> np.ndarray:
    """Decode an image to BGR pixels [height, width, 3] uint8; `path` is used in error messages only."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), COLOUR) if data else None
    if image is None:
        raise DataError(f"{path}: OpenCV cannot decode this image; unpack the archive again")
    return image


def jpeg(cv2: Any, image: np.ndarray, quality: int) -> bytes:
    """Encode BGR pixels [height, width, 3] uint8 as JPEG."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
