"""Decode images to uint8 pixels with Pillow, with identical results on every call.

Resizing is Pillow's, also on the device (see the engine's transforms): other resize code gives other pixels.
"""

import hashlib
import io
import os
import re
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image, ImageFile

from .reading import read_bytes
from .task import DataError

DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error, zlib.error),
    Image.DecompressionBombError,
)
"""Exceptions of Pillow's decoders on damaged bytes."""
DEEP = re.compile(r";16[BLN]")
"""Raw modes that Pillow would reduce from 16 to 8 bits a channel (`Unpack.c`): `RGB;16B`, `LA;16B`, `CMYK;16L`.
BMP's `BGR;16` has 16 bits a pixel."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""CPU cores of this process; reading images uses all of them, since Pillow releases Python's lock."""
AHEAD = 64
"""Images that are submitted before the first is used (our choice): keeps the threads busy and memory small."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Preprocessing:
    """How images are resized to a square of `side` pixels; recipes with crops cut the model's input from it later."""

    image_size: int
    """Side of the model's input in pixels."""
    interpolation: Literal["bicubic", "bilinear"]
    """Pillow's filter of that name, which averages over the footprint when it shrinks images."""
    framing: Literal["squash", "squash_crop", "square_crop"] = "squash"
    """Resize mode.  squash: stretch to the model's input, without a crop.  squash_crop: stretch to `side`, as RLRR and
    AOFT do for FGVC.  square_crop: the shorter side to `side`, then the centre crop, as in VPT's evaluation."""

    @property
    def side(self) -> int:
        """Side of a stored image; for crops 256 for 224, 438 for 384 and 512 for 448, as in VPT."""
        return self.image_size if self.framing == "squash" else self.image_size * 8 // 7

    @property
    def cache_facts(self) -> dict[str, Any]:
        """Fields that identify the pixels in the cache; the default resize mode is omitted, as in older caches."""
        return {key: value for key, value in asdict(self).items() if (key, value) != ("framing", "squash")}

    def apply(self, picture: Image.Image) -> Image.Image:
        """Resize like torchvision's `Resize` with Pillow, for square_crop followed by its `CenterCrop`."""
        filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
        width = height = self.side
        if self.framing == "square_crop":
            width, height = (self.side * pixels // min(picture.size) for pixels in picture.size)
        left, top = (round((pixels - self.side) / 2) for pixels in (width, height))
        resized = picture.resize((width, height), filters[self.interpolation])
        return resized.crop((left, top, left + self.side, top + self.side))


@dataclass(frozen=True)
class ImageInfo:
    """Facts about an image before its pixels are decoded."""

    sha256: str
    """Hash of the file's bytes, or of an array's shape and bytes."""
    size: tuple[int, int]
    """(height, width)"""


def probe(image: Path | np.ndarray) -> ImageInfo:
    """Hash the encoded image and read its size from the header.

    Raises:
        DataError: the file cannot be read or is not an image.
    """
    if isinstance(image, np.ndarray):
        text = f"array {image.shape}".encode()
        return ImageInfo(hashlib.sha256(text + image.tobytes()).hexdigest(), image.shape[:2])
    data = _read(image)
    with _open(image, data) as picture:
        return ImageInfo(hashlib.sha256(data).hexdigest(), (picture.height, picture.width))


def decode(image: Path | np.ndarray, preprocessing: Preprocessing | None, sha256: str | None = None) -> np.ndarray:
    """Return RGB pixels [3, height, width] uint8, at the image's native size if `preprocessing` is None.

    Grey images get three equal channels, and transparency is dropped (Pillow's `convert`).

    Raises:
        DataError: the image is damaged, has more than 8 bits a channel (which Pillow reports for PNG and TIFF), or its
            hash is not `sha256`.
    """
    if isinstance(image, np.ndarray):
        picture = Image.fromarray(image)
    else:
        data = _read(image)
        if sha256 not in (None, hashlib.sha256(data).hexdigest()):
            raise DataError(f"{image}: the file changed while it was being read; start again when nothing writes there")
        with _open(image, data) as opened:
            picture = _rgb(image, opened)
    if preprocessing is not None:
        picture = preprocessing.apply(picture)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def verify_encoded(name: Path | str, data: bytes) -> None:
    """Decode an encoded image, and raise `DataError` as `decode` does."""
    with _open(name, data) as opened:
        _rgb(name, opened)


def ending_of(data: bytes) -> str | None:
    """Return the file ending of an encoded image; None if Pillow cannot identify it."""
    try:
        form = Image.open(io.BytesIO(data)).format
    except DECODE_ERRORS:
        return None
    return next((ending for ending, name in Image.registered_extensions().items() if name == form), None)


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], pool: ThreadPoolExecutor
) -> Iterator[Result | DataError]:
    """Yield `work` of every item in order, computed by many threads; a `DataError` is yielded instead of raised."""
    waiting: deque[Future[Result]] = deque()

    def first() -> Result | DataError:
        try:
            return waiting.popleft().result()
        except DataError as error:
            return error

    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= AHEAD:
            yield first()
    while waiting:
        yield first()


def _read(path: Path) -> bytes:
    data = read_bytes(path)
    if not data:
        raise DataError(f"{path}: the file is empty")
    return data


def _open(path: Path | str, data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data))
    except Image.UnidentifiedImageError:
        raise DataError(f"{path}: Pillow cannot identify an image") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise DataError(
            f"{path}: is too large; images of more than {limit:.0f} megapixels are refused, because a small file can "
            "decode to any size: make it smaller first"
        ) from None
    except DECODE_ERRORS as error:
        raise DataError(f"{path}: is damaged ({error})") from None


def _rgb(path: Path | str, opened: ImageFile.ImageFile) -> Image.Image:
    if opened.mode.startswith(("I", "F")) or any(DEEP.search(str(raw)) for *_, raw in opened.tile):
        raise DataError(f"{path}: has more than 8 bits a channel (mode {opened.mode}); convert it to 8 bits first")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError("Pillow accepts truncated images; set PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False")
    try:
        # Pillow warns when it drops a palette's transparency in one step.
        return (opened.convert("RGBA") if "transparency" in opened.info else opened).convert("RGB")
    except DECODE_ERRORS as error:
        raise DataError(f"{path}: is damaged ({error})") from None
