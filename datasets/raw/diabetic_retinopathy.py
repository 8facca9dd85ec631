"""Diabetic Retinopathy Detection, configuration `btgraham-300`.

Source: tensorflow/datasets image_classification/diabetic_retinopathy_detection.py, version 3.0.0.
Photographs are prepared like Ben Graham's, who won the competition in 2015, and encoded again as JPEG.
"""

import csv
from pathlib import Path

import numpy as np

from ..reading import import_optional, read_bytes, read_text
from ..task import DataError, SplitName
from .files import decode, jpeg, number, require_files
from .source import Examples, Source, official_splits, original_files

RADIUS = 300
"""Radius of the eyeball in pixels."""
KEPT = 0.9
"""Part of the radius that is kept; the border is painted grey."""
GREY = 128
QUALITY = 72
CLASSES = ("no DR", "mild", "moderate", "severe", "proliferative DR")
"""Kaggle's grades 0 to 4, which are TFDS's labels."""

FILES = TRAIN, TEST, TRAIN_LABELS, TEST_LABELS = original_files("diabetic_retinopathy")


def read(raw: Path) -> dict[SplitName, Examples]:
    """Read the splits; a key is `10_left`.  Validation and test are Kaggle's public and private test images."""
    train, test = TRAIN.find(raw), TEST.find(raw)
    solution = TEST_LABELS.find(raw)
    splits = official_splits(
        _graded(TRAIN_LABELS.find(raw), train, None),
        _graded(solution, test, "Public"),
        _graded(solution, test, "Private"),
    )
    for split, examples in splits.items():
        require_files((train if split == "train" else test) / f"{key}.jpeg" for key in examples.keys)
    return splits


def _graded(path: Path, images: Path, usage: str | None) -> Examples:
    """Read a table with columns image, level and, if `usage` is given, Usage; keep the rows of that usage."""
    try:
        rows = list(reader := csv.DictReader(read_text(path).splitlines()))
    except csv.Error as error:
        raise DataError(f"{path} is not a table ({error}); download it again") from None
    needed = {"image", "level"} | ({"Usage"} if usage else set())
    if absent := needed - set(reader.fieldnames or ()):
        raise DataError(f"{path} has no column {', '.join(sorted(absent))}; download it again")
    keys, labels = [], []
    for row in rows:
        if usage is None or row["Usage"] == usage:
            keys.append(row["image"])
            labels.append(number(row["level"] or "", 0, len(CLASSES) - 1, f"{path}: {row['image']}"))
    if not keys:
        raise DataError(f"{path} has no rows" + (f" whose Usage is {usage}" if usage else "") + "; download it again")
    return Examples(keys, labels, lambda i: prepare(images / f"{keys[i]}.jpeg"))


def prepare(path: Path) -> bytes:
    """Return a JPEG of the eyeball minus its local average; its side is 540 pixels, or less if the eyeball is cut off.

    Raises:
        DataError: the file cannot be read or decoded, or OpenCV is missing.
    """
    cv2 = import_optional("cv2", "diabetic_retinopathy")
    image = decode(cv2, path, read_bytes(path))
    scale = RADIUS / _radius(image)
    image = cv2.resize(image, dsize=None, fx=scale, fy=scale)
    blurred = cv2.GaussianBlur(image, (0, 0), RADIUS / 30)
    image = cv2.addWeighted(image, 4, blurred, -4, GREY)
    middle_y, middle_x = image.shape[0] // 2, image.shape[1] // 2
    kept = int(RADIUS * KEPT)
    inside = cv2.circle(np.zeros(image.shape[:2], np.uint8), (middle_x, middle_y), kept, color=1, thickness=-1)
    image = np.where(inside[..., None] == 1, image, np.uint8(GREY))
    cut = image[max(middle_y - kept, 0) : middle_y + kept, max(middle_x - kept, 0) : middle_x + kept]
    return jpeg(cv2, cut, QUALITY)


def _radius(image: np.ndarray) -> float:
    """Return half the bright part of the middle row, or half the height if the photograph is dark."""
    brightness = image[image.shape[0] // 2].sum(axis=1)
    radius = (brightness > brightness.mean() / 10).sum() / 2
    return radius if radius >= 1 else image.shape[0] / 2


SOURCES = (Source("diabetic_retinopathy", "diabetic_retinopathy", FILES, CLASSES, read),)
