"""Tests of the PNG writer: read back exactly by Pillow, with fixed bytes."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from vtab_peft.datasets.raw.png import png


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 1, 3), (3, 200, 3), (300, 301, 3), (96, 96), (1, 7)])
def test_pillow_reads_the_same_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as picture:
        picture.verify()
    with Image.open(io.BytesIO(png(pixels))) as picture:
        assert picture.mode == ("RGB" if len(shape) == 3 else "L")
        assert np.array_equal(np.asarray(picture), pixels)


def test_the_bytes_hang_on_the_pixels_alone() -> None:
    """What every build of zlib must agree on; whole tasks are named by such bytes."""
    pixels = np.arange(64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 64, 3)
    assert hashlib.sha256(png(pixels)).hexdigest() == "7b2a22e999273a25ee37c48c2dfe7671ac0ea54e0f906aff8974d0bc3bb2b92b"
    assert png(np.asfortranarray(pixels)) == png(pixels)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError):
        png(pixels)
