"""KITTI's object detection images, classified by the distance of the nearest vehicle.

Images are those of tensorflow/datasets datasets/kitti, version 3.2.0; labels those of google-research/task_adaptation
data/kitti.py.  The labels of KITTI's own test images are not public.  TFDS therefore splits the training images, by
video, into train, validation and test.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np

from ..reading import read_text
from ..task import DataError, SplitName
from .files import class_id, lines, number, require_files
from .source import Examples, Source, official_splits, original_files

LIMITS = (-100.0, 8.0, 20.0, 999.0)
"""Limits of the classes in metres."""
CLASSES = ("up to 8 m", "8 to 20 m", "above 20 m", "no vehicle")
NO_VEHICLE = 1000.0
"""Distance in metres that is used without a vehicle."""
TYPES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")
VEHICLES = TYPES[:3]
UNLABELLED = "DontCare"
FIELDS = 15
"""Type, truncated, occluded, alpha, box (4), dimensions (3), x, y, z, rotation (KITTI's devkit readme)."""
Z = 13

FILES = IMAGES, LABELS, DEVKIT = original_files("kitti")


def read(raw: Path) -> dict[SplitName, Examples]:
    """Read the splits; a key is the file name, `000000.png`."""
    images, labels = IMAGES.find(raw), LABELS.find(raw)

    def numbered(numbers: list[int]) -> Examples:
        keys = [f"{n:06d}.png" for n in numbers]
        return Examples(keys, [vehicle_distance(labels / f"{n:06d}.txt") for n in numbers], lambda i: images / keys[i])

    splits = official_splits(*(numbered(numbers) for numbers in by_video(DEVKIT.find(raw))))
    require_files(images / key for examples in splits.values() for key in examples.keys)
    return splits


def vehicle_distance(path: Path) -> int:
    """Return the class of an image from its label file: the interval of `LIMITS` that holds its nearest vehicle."""
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
            raise DataError(f"{path}: {line[:80]!r} is not an object of KITTI's label files; unpack them again")
        nearest = min(nearest, depth) if parts[0] in VEHICLES else nearest
    return int(np.searchsorted(LIMITS, nearest)) - 1


def by_video(mapping: Path) -> tuple[list[int], list[int], list[int]]:
    """Return the image numbers of train, validation and test; the latter two get a tenth of the videos each.

    train_rand.txt maps each image to a line (from 1) of train_mapping.txt: `DATE VIDEO FRAME`.
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


SOURCES = (Source("kitti", "kitti", FILES, CLASSES, read),)
