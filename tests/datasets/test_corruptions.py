"""Corruptions: frozen bytes, the same for an image wherever it is, and stronger with severity."""

import colorsys
import hashlib

import numpy as np
import pytest
from vtab_peft.datasets.corruptions import CORRUPTIONS, SEVERITIES, VERSION, corrupt

FROZEN = {
    "gaussian_noise": "15d68989747a7157",
    "shot_noise": "19c6759c7938e72d",
    "gaussian_blur": "886892eb8585e80e",
    "contrast": "474e0fa70f31cf0a",
    "brightness": "eb477a582ea325d2",
    "pixelate": "6b884adb8f60608c",
    "jpeg": "bfdc8dc2e330a4f1",
}
"""Start of the SHA-256 of all severities of `photo()`.  A change of pixels raises `VERSION`."""


def photo(side: int = 48) -> np.ndarray:
    """Return smooth shapes with an edge and some texture, uint8 [3, side, side + 8], without floating point."""
    y, x = np.mgrid[:side, : side + 8]
    planes = [(5 * x + 2 * y) % 256, np.where(x > y, 200, 40) + 3 * ((x * y) % 7), (x * x + 3 * y) % 251]
    return np.stack(planes).astype(np.uint8)


def test_bytes_are_frozen() -> None:
    found = {
        name: hashlib.sha256(b"".join(corrupt(photo(), name, s).tobytes() for s in SEVERITIES)).hexdigest()[:16]
        for name in CORRUPTIONS
    }
    assert VERSION == 1
    assert found == FROZEN


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_grows_with_severity_and_the_image_stays(name: str) -> None:
    image = photo(112)
    before = image.copy()
    found = [corrupt(image, name, severity) for severity in SEVERITIES]
    assert np.array_equal(image, before)
    assert all(one.dtype == np.uint8 and one.shape == image.shape for one in found)
    damage = [np.abs(one.astype(int) - image).mean() for one in found]
    assert damage[0] > 1
    assert damage == sorted(damage)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise"])
def test_noise_depends_on_image_kind_and_severity_alone(name: str) -> None:
    image, other = photo(), photo()
    other[0, 0, 0] ^= 1
    np.random.seed(1)
    first = corrupt(image, name, 3)
    np.random.seed(2)
    assert np.array_equal(corrupt(image, name, 3), first)
    assert (corrupt(other, name, 3) != first).mean() > 0.5


def test_noise_has_the_stated_strength() -> None:
    grey = np.full((3, 100, 100), 128, np.uint8)
    assert corrupt(grey, "gaussian_noise", 1).std() / 255 == pytest.approx(0.08, rel=0.03)
    shot = corrupt(grey, "shot_noise", 1) / 255
    assert shot.mean() == pytest.approx(128 / 255, rel=0.01)
    assert shot.std() == pytest.approx((128 / 255 / 60) ** 0.5, rel=0.03)


def test_brightness_is_that_of_hsv() -> None:
    image = photo(16)
    found = corrupt(image, "brightness", 2).reshape(3, -1).T
    for pixel, shown in zip(image.reshape(3, -1).T / 255, found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.2))
        assert np.abs(255 * np.array(expected) - shown).max() <= 0.5 + 1e-6
    assert np.array_equal(corrupt(np.zeros((3, 4, 4), np.uint8), "brightness", 1), np.full((3, 4, 4), 26, np.uint8))


def test_blur_grows_with_the_image() -> None:
    """An edge in an image of twice the size is blurred over twice as many pixels."""
    widths = []
    for side in (112, 224):
        image = np.zeros((3, side, side), np.uint8)
        image[:, :, side // 2 :] = 255
        row = corrupt(image, "gaussian_blur", 5)[0, side // 2]
        widths.append(int(((row > 5) & (row < 250)).sum()))
    assert widths[1] == pytest.approx(2 * widths[0], abs=2)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_smallest_images_are_corrupted_too(name: str) -> None:
    for severity in SEVERITIES:
        assert corrupt(np.full((3, 1, 2), 100, np.uint8), name, severity).shape == (3, 1, 2)
