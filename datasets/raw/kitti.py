"""KITTI's object detection images by the distance of the nearest vehicle (tensorflow/datasets datasets/kitti, version
3.2.0; labels: google-research/task_adaptation data/kitti.py).  Labels of KITTI's own test images are not public, so
TFDS cuts train, validation and test out of its training images, by video.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np

from ..archive import read_text
from ..task import DataError, SplitName
from .files import class_id, lines, number, official, require
from .source import Examples, RawFile, Source

LIMITS = (-100.0, 8.0, 20.0, 999.0)
"""Metres."""
CLASSES = ("up to 8 m", "8 to 20 m", "above 20 m", "no vehicle")
NO_VEHICLE = 1000.0
"""The distance that stands for none, in metres."""
TYPES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")
VEHICLES = TYPES[:3]
UNLABELLED = "DontCare"
FIELDS = 15
"""Type, truncated, occluded, alpha, four of the box, three dimensions, x, y, z, rotation (KITTI's devkit readme)."""
Z = 13

PLACE = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
# SHA-256: tensorflow/datasets datasets/kitti/checksums.tsv
IMAGES = RawFile(
    "training/image_2",
    f"{PLACE}/data_object_image_2.zip",
    "351c5a2aa0cd9238b50174a3a62b846bc5855da256b82a196431d60ff8d43617",
)
LABELS = RawFile(
    "training/label_2",
    f"{PLACE}/data_object_label_2.zip",
    "4efc76220d867e1c31bb980bbf8cbc02599f02a9cb4350effa98dbb04aaed880",
)
DEVKIT = RawFile(
    "mapping",
    f"{PLACE}/devkit_object.zip",
    "ce0b76b69c0c5f89690a0d65b7302bbbdb962a0c7e8aba6efc7050d1b04b4cf1",
)


def read(raw: Path) -> dict[SplitName, Examples]:
    """The key is the file's name, `000000.png`."""
    images, labels = IMAGES.find(raw), LABELS.find(raw)

    def numbered(numbers: list[int]) -> Examples:
        keys = [f"{n:06d}.png" for n in numbers]
        return Examples(keys, [vehicle_distance(labels / f"{n:06d}.txt") for n in numbers], lambda i: images / keys[i])

    splits = official(*(numbered(numbers) for numbers in by_video(DEVKIT.find(raw))))
    require(images / key for examples in splits.values() for key in examples.keys)
    return splits


def vehicle_distance(path: Path) -> int:
    """The class of an image from its label file: where the z of its nearest vehicle lies among `LIMITS`."""
    nearest = np.float32(NO_VEHICLE)  # TFDS keeps distances in 32 bits
    for line in read_text(path).splitlines():
        parts = line.split()
        if not parts or parts[0] == UNLABELLED:
            continue
        class_id(parts[0], TYPES, f"{path}: {line}")
        try:
            depth = np.float32(parts[Z]) if len(parts) == FIELDS else None
        except ValueError:
            depth = None
        if depth is None or not depth > LIMITS[0]:
            raise DataError(f"{path}: {line[:80]!r} is no object of KITTI's label files; unpack them again")
        nearest = min(nearest, depth) if parts[0] in VEHICLES else nearest
    return int(np.searchsorted(LIMITS, nearest)) - 1


def by_video(mapping: Path) -> tuple[list[int], list[int], list[int]]:
    """Numbers of the images of train, validation and test: a tenth of the videos each for the latter two.

    train_rand.txt gives for every image a line, from 1, of train_mapping.txt: `DATE VIDEO FRAME`.
    """
    origins, order = mapping / "train_mapping.txt", mapping / "train_rand.txt"
    frames = [line.split() for line in read_text(origins).splitlines()]
    videos: dict[str, list[int]] = defaultdict(list)
    for image, text in enumerate(",".join(lines(order)).split(",")):
        frame = frames[number(text, 1, len(frames), f"{order}, image {image}") - 1]
        if len(frame) != 3:
            raise DataError(f"{origins}: expected `DATE VIDEO FRAME`, found {' '.join(frame)[:80]!r}")
        videos[frame[1]].append(image)
    draw = np.random.RandomState(123)  # TFDS's generator and seed
    tenth = max(1, len(videos) // 10)
    test = set(draw.choice(sorted(videos), tenth, replace=False))
    validation = set(draw.choice(sorted(videos.keys() - test), tenth, replace=False))
    train = videos.keys() - test - validation

    def images_of(part: set[str]) -> list[int]:
        return [image for video, images in videos.items() if video in part for image in images]

    return images_of(train), images_of(validation), images_of(test)


SOURCES = (Source("kitti", "kitti", (IMAGES, LABELS, DEVKIT), CLASSES, read),)
