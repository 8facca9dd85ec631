"""Synthetic corruptions of decoded images, each at five severities.

Kinds and parameters are those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019;
github.com/hendrycks/robustness, ImageNet-C/imagenet_c/imagenet_c/corruptions.py), for 224 pixels.  Blur grows with the
image, so that small images are blurred alike; the other parameters do not depend on the size.

Noise is drawn from `RandomState`, whose streams NumPy keeps for ever (NEP 19), with a seed made of the image's pixels,
the corruption and the severity.  So an image is corrupted in the same way wherever it is.
"""

import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

VERSION = 1
"""Raised if the pixels of any corruption change."""
SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 224
"""Side in pixels of the images that the blur's standard deviations are for."""

Pixels = np.ndarray
"""[height, width, 3], float64 in [0, 1]"""


def corrupt(image: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Return the corrupted image, uint8 [3, height, width] like `image`.

    name: a key of `CORRUPTIONS`.  severity: 1 to 5.
    """
    work, parameters = CORRUPTIONS[name]
    key = f"{name} {severity} {image.shape}".encode() + image.tobytes()
    random = np.random.RandomState(np.frombuffer(hashlib.sha256(key).digest(), "<u4"))
    found = work(image.transpose(1, 2, 0) / 255, parameters[severity - 1], random)
    return np.ascontiguousarray(_to_uint8(found).transpose(2, 0, 1))


def _to_uint8(pixels: Pixels) -> np.ndarray:
    return np.rint(255 * pixels.clip(0, 1)).astype(np.uint8)


def _gaussian_noise(pixels: Pixels, std: float, random: np.random.RandomState) -> Pixels:
    return pixels + random.normal(scale=std, size=pixels.shape)


def _shot_noise(pixels: Pixels, photons: float, random: np.random.RandomState) -> Pixels:
    return random.poisson(pixels * photons) / photons


def _gaussian_blur(pixels: Pixels, std: float, _: np.random.RandomState) -> Pixels:
    std *= max(pixels.shape) / SIDE
    return gaussian_filter(pixels, (std, std, 0), mode="nearest")


def _contrast(pixels: Pixels, factor: float, _: np.random.RandomState) -> Pixels:
    mean = pixels.mean(axis=(0, 1))
    return mean + factor * (pixels - mean)


def _brightness(pixels: Pixels, shift: float, _: np.random.RandomState) -> Pixels:
    """Raise the value of HSV, which is the largest channel; hue and saturation stay."""
    value = pixels.max(axis=2, keepdims=True)
    brighter = (value + shift).clip(0, 1)
    return np.where(value > 0, pixels * brighter / np.maximum(value, 1e-9), brighter)


def _pixelate(pixels: Pixels, factor: float, _: np.random.RandomState) -> Pixels:
    image = Image.fromarray(_to_uint8(pixels))
    small = image.resize((max(1, int(image.width * factor)), max(1, int(image.height * factor))), Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BOX)) / 255


def _jpeg(pixels: Pixels, quality: float, _: np.random.RandomState) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(_to_uint8(pixels)).save(buffer, "JPEG", quality=int(quality))
    return np.asarray(Image.open(buffer)) / 255


CORRUPTIONS: dict[str, tuple[Callable[[Pixels, float, np.random.RandomState], Pixels], tuple[float, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (_shot_noise, (60, 25, 12, 5, 3)),
    "gaussian_blur": (_gaussian_blur, (1, 2, 3, 4, 6)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7)),
}
"""Name -> function, and its parameter at each severity."""
