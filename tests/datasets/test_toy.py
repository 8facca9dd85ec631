"""Tests of the suite `toy`: fixed pixels, balanced classes, and labels that agree with the pictures."""

import hashlib
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from vtab_peft.datasets.scene import SIDE, Scene, scattered
from vtab_peft.datasets.task import SPLITS, Split
from vtab_peft.datasets.toy import SIZES, TOY, draw

PIXELS = {
    "texture": "53683ce239150ad1",
    "colour_shape": "576f382ce1660c28",
    "cells": "6a555f217e2b2913",
    "count": "17f0fc4ab5d2da27",
    "position": "5d16ebd05e981748",
    "orientation": "451d3dcce08320a5",
}
"""SHA-256 (first 16 digits) of all images of version 1: train, val, test; a change of them needs a new version."""


NAMES = [name if name in ("count", "position") else pytest.param(name, marks=pytest.mark.slow) for name in TOY]


@cache
def load(name: str) -> dict[str, Split]:
    return dict(TOY[name].load(TOY[name]))


def every(splits: dict[str, Split]) -> np.ndarray:
    return np.stack([image for name in SPLITS for image in splits[name].images])


def clean(name: str, n: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Labels and what differs from the flat background, [n, SIDE, SIDE] bool, of scenes without nuisances."""
    labels = np.arange(n) % TOY[name].classes
    pictures = draw(name, labels, np.random.default_rng(5), clean=True).astype(int)
    corner = pictures[:, :1, :1]
    return labels, np.abs(pictures - corner).max(-1) > 20


@pytest.mark.parametrize("name", NAMES)
def test_the_pixels_are_those_of_this_version(name):
    assert TOY[name].version == 1
    assert hashlib.sha256(every(load(name)).tobytes()).hexdigest()[:16] == PIXELS[name]


@pytest.mark.slow
def test_a_second_load_gives_the_same_pictures():
    again = TOY["position"].load(TOY["position"])
    for split in SPLITS:
        assert np.array_equal(again[split].labels, load("position")[split].labels)
        assert np.array_equal(np.stack(again[split].images), np.stack(load("position")[split].images))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_sizes_are_what_the_row_says(name):
    for split, size in SIZES.items():
        labels, images = load(name)[split].labels, load(name)[split].images
        assert TOY[name].sizes[split] == (size,)
        assert (labels.dtype, labels.shape, len(images)) == (np.int64, (size,), size)
        assert all(image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8 for image in images)


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_balanced_and_shuffled(name):
    for split in load(name).values():
        counts = np.bincount(split.labels, minlength=TOY[name].classes)
        assert len(counts) == TOY[name].classes == len(TOY[name].class_names)
        assert counts.max() - counts.min() <= 1
        assert (np.diff(split.labels) != 0).mean() < 0.99  # not simply 0, 1, 2, ...


@pytest.mark.parametrize("name", NAMES)
def test_no_picture_occurs_twice(name):
    pictures = every(load(name))
    assert len({picture.tobytes() for picture in pictures}) == sum(SIZES.values())


def test_every_group_has_a_task():
    assert {task.group for task in TOY.values()} == {"natural", "specialized", "structured"}
    assert all(task.suite == "toy" and task.provenance == "lossless" for task in TOY.values())


def test_position_is_the_column_of_the_object():
    labels, seen = clean("position")
    for label, picture in zip(labels, seen, strict=True):
        centre = np.nonzero(picture)[1].mean() + 0.5
        assert 8 + 6 * label - 0.5 < centre < 8 + 6 * (label + 1) + 0.5


def test_orientation_is_the_principal_axis():
    labels, seen = clean("orientation")
    for label, picture in zip(labels, seen, strict=True):
        y, x = np.nonzero(picture)
        _, axes = np.linalg.eigh(np.cov(x, y))
        angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1])) % 180
        middle = 22.5 * (label + 0.5)
        assert abs((angle - middle + 90) % 180 - 90) < 22.5 / 2 + 1.5


def test_count_is_the_number_of_connected_objects():
    labels, seen = clean("count")
    touching = np.zeros((3, 3, 3))
    touching[1] = 1  # neighbours of the same picture
    regions = np.zeros(seen.shape, int)
    ndimage.label(seen, touching, output=regions)
    assert [len(np.unique(picture)) - 1 for picture in regions] == [label + 1 for label in labels]


@pytest.mark.slow
def test_denser_cells_cover_more():
    labels = np.arange(600) % 5
    pictures = draw("cells", labels, np.random.default_rng(5), clean=True).astype(float)
    glass = np.median(pictures, axis=(1, 2), keepdims=True)
    nuclei = np.abs(pictures - glass).max(-1) > 25
    cover = [nuclei[labels == label].mean() for label in range(5)]
    assert all(more > 1.1 * less for less, more in pairwise(cover))


def test_colour_is_the_strongest_channel_of_the_object():
    labels = np.arange(240) % 12
    pictures = draw("colour_shape", labels, np.random.default_rng(5), clean=True).astype(int)
    strange = np.abs(pictures - pictures[:, :1, :1]).max(-1) > 20
    mean = np.stack([picture[mask].mean(0) for picture, mask in zip(pictures, strange, strict=True)])
    assert (mean.argmax(1) == labels % 3).mean() > 0.98


def test_nuisances_are_there_unless_the_scene_is_clean():
    plain, real = (draw("position", np.zeros(20, int), np.random.default_rng(1), clean=c) for c in (True, False))
    colours = [len(np.unique(p.reshape(-1, 3), axis=0)) for p in np.concatenate([plain, real])]
    assert max(colours[:20]) < 100 < 1000 < min(colours[20:])


def test_scattered_places_keep_their_distance():
    places = np.stack(
        [np.concatenate(place, -1)[:, 0] for place in scattered(Scene(np.random.default_rng(0), 200), 6, 13)]
    )
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + 99 * np.eye(6)[:, :, None]
    assert gaps.min() > 13
    assert places.min() >= 6.5
    assert places.max() <= SIDE - 6.5
