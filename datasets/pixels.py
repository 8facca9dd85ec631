"""From an encoded image to uint8 pixels, with Pillow, the same on every call."""

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

from .task import DataError

BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error, zlib.error),
    Image.DecompressionBombError,
)
"""What Pillow's many decoders raise on damaged bytes."""
DEEP = re.compile(r";16[BLN]")
"""In the raw modes of what Pillow would cut from 16 bits a channel to 8 (`Unpack.c`): `RGB;16B`, `LA;16B`, `CMYK;16L`.
BMP's `BGR;16` is 16 bits a pixel."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Those that this process may use: reading images keeps all of them busy, as Pillow works outside Python's lock."""
AHEAD = 64
"""Images taken in hand before the first of them is used (ours): keeps the threads busy, and memory small."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Preprocessing:
    """How images come to a square of `side` pixels, from which a framing that crops cuts the model's input later."""

    image_size: int
    """Side of the model's input in pixels."""
    interpolation: Literal["bicubic", "bilinear"]
    """Pillow's filter of that name, which averages over the footprint when it makes images smaller."""
    framing: Literal["squash", "squash_crop", "square_crop"] = "squash"
    """squash: to the model's input, nothing cut off.  squash_crop: to `side`, as RLRR and AOFT do for FGVC.
    square_crop: the shorter side to `side`, and of the longer one the middle, as VPT does before it evaluates."""

    @property
    def side(self) -> int:
        """Pixels of a stored image; where something is cut off, 256 for 224, 438 for 384 and 512 for 448, as in VPT."""
        return self.image_size if self.framing == "squash" else self.image_size * 8 // 7

    @property
    def names(self) -> dict[str, Any]:
        """What names the pixels in the cache: the framing came later, and is left out where nothing is cut off."""
        return {key: value for key, value in asdict(self).items() if (key, value) != ("framing", "squash")}

    def apply(self, picture: Image.Image) -> Image.Image:
        """The bytes that torchvision's `Resize`, and for square_crop its `CenterCrop`, give with Pillow."""
        filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
        width = height = self.side
        if self.framing == "square_crop":
            width, height = (self.side * pixels // min(picture.size) for pixels in picture.size)
        left, top = (round((pixels - self.side) / 2) for pixels in (width, height))
        resized = picture.resize((width, height), filters[self.interpolation])
        return resized.crop((left, top, left + self.side, top + self.side))


@dataclass(frozen=True)
class ImageInfo:
    """What is known of an image before its pixels are decoded."""

    sha256: str
    """Of the file's bytes, or of an array's shape and bytes."""
    size: tuple[int, int]
    """(height, width)"""


def probe(image: Path | np.ndarray) -> ImageInfo:
    """Hash the encoded image and read its size from the header.

    Raises:
        DataError: the file cannot be read or is no image.
    """
    if isinstance(image, np.ndarray):
        text = f"array {image.shape}".encode()
        return ImageInfo(hashlib.sha256(text + image.tobytes()).hexdigest(), image.shape[:2])
    data = _bytes(image)
    with _open(image, data) as picture:
        return ImageInfo(hashlib.sha256(data).hexdigest(), (picture.height, picture.width))


def decode(image: Path | np.ndarray, preprocessing: Preprocessing | None, sha256: str | None = None) -> np.ndarray:
    """Pixels [3, height, width] uint8, RGB; at the image's own size when `preprocessing` is None.

    Grey images get three equal channels, and transparency is dropped (Pillow's `convert`).

    Raises:
        DataError: the image is damaged, has more than 8 bits a channel (as far as Pillow tells; of PNG and TIFF it
            does), or is not the one with hash `sha256`.
    """
    if isinstance(image, np.ndarray):
        picture = Image.fromarray(image)
    else:
        data = _bytes(image)
        if sha256 not in (None, hashlib.sha256(data).hexdigest()):
            raise DataError(f"{image}: the file changed while it was being read; start again when nothing writes there")
        with _open(image, data) as opened:
            picture = _rgb(image, opened)
    if preprocessing is not None:
        picture = preprocessing.apply(picture)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], pool: ThreadPoolExecutor
) -> Iterator[Result | DataError]:
    """`work` of every item, by many threads; a `DataError` is yielded in the place of its item."""
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


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not data:
        raise DataError(f"{path}: the file is empty")
    return data


def _open(path: Path, data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data))
    except BROKEN as error:
        reason = (
            "is no image Pillow knows" if isinstance(error, Image.UnidentifiedImageError) else f"is damaged ({error})"
        )
        raise DataError(f"{path}: {reason}") from None


def _rgb(path: Path, opened: ImageFile.ImageFile) -> Image.Image:
    if opened.mode.startswith(("I", "F")) or any(DEEP.search(str(raw)) for *_, raw in opened.tile):
        raise DataError(f"{path}: has more than 8 bits a channel (mode {opened.mode}); convert it to 8 bits first")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError("Pillow was told to accept truncated images; set PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False")
    try:
        # Pillow warns when a palette's transparency is dropped at once.
        return (opened.convert("RGBA") if "transparency" in opened.info else opened).convert("RGB")
    except BROKEN as error:
        raise DataError(f"{path}: is damaged ({error})") from None
