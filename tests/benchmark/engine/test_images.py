"""The resize on the device gives the bytes of Pillow, which is the reference."""

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from raises import raises_naming
from torchvision.transforms.functional import center_crop as torchvisions_center_crop
from torchvision.transforms.functional import normalize, to_tensor
from vtab_peft.benchmark.engine.transforms import Normalize, center_crop, random_crop, random_flip, resize

INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def random_images(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Return noise, and images of 0 and 255 whose overshoot is clipped.  uint8 [12, 3, height, width]"""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (8, 3, height, width), dtype=np.uint8)
    extremes = rng.integers(0, 2, (4, 3, height, width), dtype=np.uint8) * 255
    return torch.from_numpy(np.concatenate([noise, extremes]))


def by_pillow(images: torch.Tensor, size: int, interpolation: str) -> torch.Tensor:
    resized = [
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize((size, size), INTERPOLATIONS[interpolation])
        for image in images
    ]
    return torch.from_numpy(np.stack([np.asarray(image).transpose(2, 0, 1) for image in resized]))


SIZES = [(28, 28), (32, 32), (64, 64), (96, 96), (33, 57), (96, 20), (224, 60), (1, 7), (300, 300), (500, 224)]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_no_byte_differs_from_pillow_at_224(height: int, width: int, interpolation: str) -> None:
    images = random_images(height, width)
    assert torch.equal(resize(images, 224, interpolation), by_pillow(images, 224, interpolation))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [32, 64, 75, 384])
def test_no_byte_differs_from_pillow_at_other_sizes(size: int, interpolation: str) -> None:
    images = random_images(64, 64)
    assert torch.equal(resize(images, size, interpolation), by_pillow(images, size, interpolation))


SHAPES = [tuple(shape) for shape in np.random.default_rng(0).integers(1, 128, (196, 3)).tolist()]
TALL = [(80, 60, 64), (95, 33, 64), (96, 32, 64), (90, 30, 64)]
"""Pillow 13 resizes the height of these first (python-pillow#9549)."""


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_no_byte_differs_from_pillow_at_200_shapes(interpolation: str) -> None:
    """Heights, widths and sizes up and down, with whatever version of Pillow is installed."""
    for height, width, size in SHAPES + TALL:
        images = random_images(height, width)[6:10]
        wanted = by_pillow(images, size, interpolation)
        assert torch.equal(resize(images, size, interpolation), wanted), (height, width, size)


def test_a_pillow_that_resizes_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nearest = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, size, _: nearest(image, size, Image.Resampling.NEAREST))
    with raises_naming(ValueError, PIL.__version__, "33 x 21"):
        resize(random_images(21, 33), 40, "bicubic")


@pytest.mark.gpu
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("side", [32, 64, 96])
def test_no_byte_differs_from_pillow_on_a_gpu(side: int, interpolation: str) -> None:
    images = random_images(side, side)
    assert torch.equal(resize(images.cuda(), 224, interpolation).cpu(), by_pillow(images, 224, interpolation))


def test_the_input_equals_torchvisions_of_pillows_image() -> None:
    images, mean, std = random_images(32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = [
        normalize(to_tensor(image.permute(1, 2, 0).numpy()), list(mean), list(std))
        for image in by_pillow(images, 64, "bicubic")
    ]
    assert torch.equal(Normalize(mean, std)(resize(images, 64, "bicubic")), torch.stack(wanted))


def test_images_of_the_right_size_are_unchanged() -> None:
    images = random_images(16, 16)
    before = images.clone()
    pixels = Normalize((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(resize(images, 16, "bicubic"))
    assert torch.equal((pixels * 255).round().byte(), before)
    assert torch.equal(images, before)


def test_unknown_interpolations_are_refused() -> None:
    with raises_naming(ValueError, "lanczos", "bilinear", "bicubic"):
        resize(random_images(8, 8), 16, "lanczos")


def test_flips_mirror_half_of_the_images_and_follow_the_seed() -> None:
    images = torch.arange(400 * 3 * 2 * 4).reshape(400, 3, 2, 4)
    flipped = random_flip(images, torch.Generator().manual_seed(3))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert 150 < int(mirrored.sum()) < 250
    assert torch.equal(flipped, random_flip(images, torch.Generator().manual_seed(3)))
    assert not torch.equal(flipped, random_flip(images, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize(("height", "width"), [(256, 256), (73, 64), (71, 90), (64, 64)])
def test_centre_crops_equal_torchvisions(height: int, width: int) -> None:
    images = random_images(height, width)
    assert torch.equal(center_crop(images, 64), torchvisions_center_crop(images, [64, 64]))


def coordinates(count: int, height: int, width: int) -> torch.Tensor:
    """Return images whose pixels are their image, row and column.  int64 [count, 3, height, width]"""
    axes = torch.meshgrid(torch.arange(count), torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(axes, dim=1)


def test_random_crops_are_uniform_over_all_positions() -> None:
    crops = random_crop(coordinates(6000, 6, 9), 4, torch.Generator().manual_seed(3))
    assert crops.shape == (6000, 3, 4, 4)
    corners = crops[:, :, :1, :1]
    steps = coordinates(1, 4, 4)
    assert torch.equal(crops - corners, steps.expand_as(crops))
    assert torch.equal(corners[:, 0].flatten(), torch.arange(6000))
    places = torch.stack([corners[:, 1].flatten(), corners[:, 2].flatten()], dim=1).unique(dim=0, return_counts=True)
    assert places[0].tolist() == [[row, column] for row in range(3) for column in range(6)]
    # 18 places, 333 expected at each; a fair draw exceeds 40.8 in one case of 1,000 (chi-squared, 17 degrees)
    assert float(((places[1] - 6000 / 18) ** 2 / (6000 / 18)).sum()) < 40.8


def test_random_crops_follow_the_seed() -> None:
    images = random_images(12, 12)
    first, again, other = (random_crop(images, 8, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(random_crop(images, 12, torch.Generator().manual_seed(3)), images)
