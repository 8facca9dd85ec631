"""From uint8 pixels to the model's input, on the device.

Images kept at their native size are resized here with the very numbers Pillow would give.  Pillow resizes 8-bit
images in two passes, rows then columns; each pass multiplies by coefficients rounded to 22 fractional bits, adds
one half and clips to 0..255 (`ImagingResample` in Pillow's src/libImaging/Resample.c).  All of these are integers
below 2^53, so float64 matrix products give them exactly, in any order of summation and on any device.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ..spec import RunSpec

PRECISION_BITS = 32 - 8 - 2
"""Fractional bits of Pillow's coefficients: 32-bit integers, 8-bit pixels, 2 bits of headroom for overshoot."""


def _bilinear(x: float) -> float:
    return max(1 - abs(x), 0.0)


def _bicubic(x: float) -> float:
    """Keys' cubic with a = -1/2, evaluated in Pillow's order of operations."""
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


FILTERS = {"bilinear": (_bilinear, 1.0), "bicubic": (_bicubic, 2.0)}
"""Filter and its support in source pixels."""


def resize_matrix(old: int, new: int, interpolation: str) -> np.ndarray:
    """Pillow's fixed-point coefficients for one axis: [new, old] integers, each row about 2^22 in sum.

    Raises:
        ValueError: unknown interpolation.
    """
    if interpolation not in FILTERS:
        raise ValueError(f"unknown interpolation {interpolation!r}; known are {', '.join(FILTERS)}")
    filter_, support = FILTERS[interpolation]
    scale = old / new
    stretch = max(scale, 1.0)  # when images get smaller, the filter covers all pixels that go into one
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
    """Squash to a square exactly as Pillow does.  images: [b, c, height, width] uint8 -> [b, c, size, size] uint8

    Takes 8 bytes for each pixel of an intermediate image while it works.
    """
    if images.shape[-1] != size:
        images = _round(images.double() @ _device_matrix(images.shape[-1], size, interpolation, images.device).T)
    if images.shape[-2] != size:
        images = _round(_device_matrix(images.shape[-2], size, interpolation, images.device) @ images.double())
    return images


def _round(sums: Tensor) -> Tensor:
    """Back from fixed point: add one half, drop the fraction, clip.  Exact: only powers of two are divided by."""
    return sums.add_(1 << (PRECISION_BITS - 1)).div_(1 << PRECISION_BITS).floor_().clamp_(0, 255).byte()


class Normalised(nn.Module):
    """(x / 255 - mean) / std of each channel: uint8 [b, 3, h, w] -> float32 of the same shape."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float().div_(255).sub_(self.mean).div_(self.std)


def to_input(images: Tensor, size: int, interpolation: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Resize, then normalise.  images: [b, 3, height, width] uint8 -> [b, 3, size, size] float32"""
    return Normalised(mean, std).to(images.device)(resize(images, size, interpolation))


def framed(images: Tensor, size: int, spec: RunSpec) -> Tensor:
    """uint8 [b, 3, h, w] as cached -> uint8 [b, 3, size, size]: squashed, or the centre where a cell's recipe crops."""
    shown = images if spec.recipe.framing == "squash" else center_crop(images, size)
    return resize(shown, size, spec.interpolation)


def prepared(images: Tensor, size: int, spec: RunSpec) -> Tensor:
    """uint8 [b, 3, h, w] as cached -> the input of a cell, [b, 3, size, size] float32"""
    return Normalised(spec.mean, spec.std).to(images.device)(framed(images, size, spec))


def center_crop(images: Tensor, size: int) -> Tensor:
    """The middle, where torchvision's `CenterCrop` cuts it.  images: [b, c, height, width] -> [b, c, size, size]"""
    top, left = (round((side - size) / 2) for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def random_crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A place of its own for each image, all equally likely.  images: [b, c, height, width] -> [b, c, size, size]

    `generator`: of the CPU.
    """
    b, c, height, width = images.shape
    top, left = (torch.randint(side - size + 1, (b, 1), generator=generator) for side in (height, width))
    rows, columns = ((start + torch.arange(size)).to(images.device) for start in (top, left))  # [b, size] each
    image, channel = torch.arange(b, device=images.device), torch.arange(c, device=images.device)
    return images[image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2.  images: [b, ...]; `generator`: of the CPU."""
    heads = torch.rand(len(images), generator=generator) < 0.5
    heads = heads.to(images.device).view(-1, *[1] * (images.dim() - 1))
    return torch.where(heads, images.flip(-1), images)
