"""Image transforms on the device: resize, crop, flip and normalise uint8 pixels.

The resize equals that of the installed Pillow to the bit, so it is our own code.  Pillow resizes 8-bit images in two
passes, one for each axis.  Each pass multiplies by coefficients rounded to 22 fractional bits, adds one half and clips
to 0..255 (`ImagingResample` in Pillow's src/libImaging/Resample.c).  All these numbers are integers below 2^53, so
float64 matrix products are exact, in any order of summation and on any device.  The order of the two passes differs
between versions of Pillow and between shapes, so the installed Pillow is asked for it.
"""

import math
from functools import lru_cache

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor, nn

from ..spec import RunSpec

PRECISION_BITS = 32 - 8 - 2
"""Fractional bits of Pillow's coefficients: 32-bit integers, 8-bit pixels, 2 bits of headroom for overshoot."""
PROBES = 64
"""Noise images that are tried until the two orders of passes differ (our choice); the first one nearly always does."""


def _bilinear(x: float) -> float:
    return max(1 - abs(x), 0.0)


def _bicubic(x: float) -> float:
    """Return Keys' cubic with a = -1/2, evaluated in Pillow's order of operations."""
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


FILTERS = {"bilinear": (_bilinear, 1.0), "bicubic": (_bicubic, 2.0)}
"""Filter function and its support in source pixels."""


def resize_matrix(old: int, new: int, interpolation: str) -> np.ndarray:
    """Return Pillow's fixed-point coefficients for one axis: integers [new, old], each row sums to about 2^22.

    Raises:
        ValueError: unknown interpolation.
    """
    if interpolation not in FILTERS:
        raise ValueError(f"unknown interpolation {interpolation!r}; choose from {', '.join(FILTERS)}")
    filter_, support = FILTERS[interpolation]
    scale = old / new
    stretch = max(scale, 1.0)  # downscaling widens the filter over all source pixels of an output pixel
    matrix = np.zeros((new, old), np.int64)
    for row in range(new):
        center = (row + 0.5) * scale
        first = max(int(center - support * stretch + 0.5), 0)
        last = min(int(center + support * stretch + 0.5), old)
        weights = [filter_((x - center + 0.5) * (1 / stretch)) for x in range(first, last)]
        total = sum(weights)
        for x, weight in zip(range(first, last), weights, strict=True):
            fixed = weight / total * (1 << PRECISION_BITS)
            matrix[row, x] = math.floor(fixed + 0.5) if fixed >= 0 else math.ceil(fixed - 0.5)
    return matrix


@lru_cache(maxsize=64)
def _device_matrix(old: int, new: int, interpolation: str, device: torch.device) -> Tensor:
    return torch.from_numpy(resize_matrix(old, new, interpolation)).to(device, torch.float64)


def resize(images: Tensor, size: int, interpolation: str) -> Tensor:
    """Stretch to a square exactly as the installed Pillow does.  uint8 [b, c, h, w] -> uint8 [b, c, size, size]

    Intermediate images take 8 bytes per pixel.

    Raises:
        ValueError: unknown interpolation, or the installed Pillow resizes in another way.
    """
    height, width = images.shape[-2:]
    if size in (height, width):  # at most one pass
        return _resize(images, size, interpolation, vertical_first=False)
    return _resize(images, size, interpolation, _is_vertical_first(height, width, size, interpolation))


def _resize(images: Tensor, size: int, interpolation: str, vertical_first: bool) -> Tensor:
    for vertical in (vertical_first, not vertical_first):
        side = images.shape[-2 if vertical else -1]
        if side != size:
            matrix = _device_matrix(side, size, interpolation, images.device)
            images = _round(matrix @ images.double() if vertical else images.double() @ matrix.T)
    return images


@lru_cache(maxsize=64)
def _is_vertical_first(height: int, width: int, size: int, interpolation: str) -> bool:
    """Return True if the installed Pillow resizes the height of this shape before its width, found with noise.

    Pillow 10.4 to 12.3 resize the width first.  13.0 starts with the height where it shrinks much more.
    """
    rng = np.random.default_rng(0)
    for _ in range(PROBES):
        noise = rng.integers(0, 256, (height, width, 3), np.uint8)
        images = torch.from_numpy(noise).permute(2, 0, 1)
        orders = [_resize(images, size, interpolation, vertical_first) for vertical_first in (False, True)]
        pillows = Image.fromarray(noise).resize((size, size), Image.Resampling[interpolation.upper()])
        equal = [torch.equal(order, torch.from_numpy(np.array(pillows)).permute(2, 0, 1)) for order in orders]
        if not any(equal):
            raise ValueError(
                f"Pillow {PIL.__version__} resizes {width} x {height} images to {size} x {size} ({interpolation}) in a "
                "way that the device cannot repeat; install another version, such as Pillow 13.0"
            )
        if not all(equal):
            return equal[1]
    return False  # both orders give the same bytes


def _round(sums: Tensor) -> Tensor:
    """Round fixed-point sums to uint8.  Exact, because it divides by a power of two only."""
    return sums.add_(1 << (PRECISION_BITS - 1)).div_(1 << PRECISION_BITS).floor_().clamp_(0, 255).byte()


class Normalize(nn.Module):
    """Normalise each channel, (x / 255 - mean) / std.  uint8 [b, 3, h, w] -> float32 [b, 3, h, w]"""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float().div_(255).sub_(self.mean).div_(self.std)


def crop_and_resize(images: Tensor, size: int, spec: RunSpec) -> Tensor:
    """Bring cached images to the model's size: cut the centre if the recipe crops, then stretch.

    uint8 [b, 3, h, w] -> uint8 [b, 3, size, size]
    """
    cropped = images if spec.recipe.framing == "squash" else center_crop(images, size)
    return resize(cropped, size, spec.interpolation)


def preprocess(images: Tensor, size: int, spec: RunSpec) -> Tensor:
    """Convert cached images to the model's input.  uint8 [b, 3, h, w] -> float32 [b, 3, size, size]"""
    return Normalize(spec.mean, spec.std).to(images.device)(crop_and_resize(images, size, spec))


def center_crop(images: Tensor, size: int) -> Tensor:
    """Cut the centre as torchvision's `CenterCrop` does.  [b, c, height, width] -> [b, c, size, size]"""
    top, left = (round((side - size) / 2) for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def random_crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Cut a random square from each image; all positions are equally likely.

    [b, c, height, width] -> [b, c, size, size].  The generator is on the CPU.
    """
    b, c, height, width = images.shape
    top, left = (torch.randint(side - size + 1, (b, 1), generator=generator) for side in (height, width))
    rows, columns = ((start + torch.arange(size)).to(images.device) for start in (top, left))  # [b, size] each
    image, channel = torch.arange(b, device=images.device), torch.arange(c, device=images.device)
    return images[image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image [b, ...] left to right with probability 1/2.  The generator is on the CPU."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    mirrored = mirrored.to(images.device).view(-1, *[1] * (images.dim() - 1))
    return torch.where(mirrored, images.flip(-1), images)
