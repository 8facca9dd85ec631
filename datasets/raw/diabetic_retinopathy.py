"""Diabetic Retinopathy Detection, configuration `btgraham-300` (tensorflow/datasets
image_classification/diabetic_retinopathy_detection.py, version 3.0.0).

The photographs are prepared as Ben Graham did, who won the competition in 2015, and encoded anew as JPEG.
"""

import csv
from pathlib import Path

import numpy as np

from ..archive import read_text
from ..task import DataError, SplitName
from .files import number, official, require
from .opencv import content, decode, jpeg, opencv
from .source import Examples, RawFile, Source

RADIUS = 300
"""Of the eyeball, in pixels."""
KEPT = 0.9
"""The part of that radius that is not painted over."""
GREY = 128
QUALITY = 72
CLASSES = ("no DR", "mild", "moderate", "severe", "proliferative DR")
"""Kaggle's grades 0 to 4, which are TFDS's labels."""

PAGE = "https://www.kaggle.com/c/diabetic-retinopathy-detection/data"
HOW = "accept the rules of the competition, join the parts (cat {0}.zip.* > {0}.zip) and unpack {0}.zip here"
TRAIN = RawFile("train", PAGE, manual=HOW.format("train"))
TEST = RawFile("test", PAGE, manual=HOW.format("test"))
TRAIN_LABELS = RawFile("trainLabels.csv", PAGE, manual="accept the rules of the competition and unpack it here")
TEST_LABELS = RawFile(
    "retinopathy_solution.csv",
    "https://storage.googleapis.com/kaggle-forum-message-attachments/90528/2877/retinopathy_solution.csv",
    # tensorflow/datasets url_checksums/diabetic_retinopathy_detection.txt
    "a6af3d66804e81887da89b9261bcfb7da4f5bacedb070f1b5db83fa879ab60c9",
)


def read(raw: Path) -> dict[SplitName, Examples]:
    """The key is `10_left`.  Validation is the public part of Kaggle's test images, test the private one."""
    train, test = TRAIN.find(raw), TEST.find(raw)
    solution = TEST_LABELS.find(raw)
    splits = official(
        _graded(TRAIN_LABELS.find(raw), train, None),
        _graded(solution, test, "Public"),
        _graded(solution, test, "Private"),
    )
    for split, examples in splits.items():
        require((train if split == "train" else test) / f"{key}.jpeg" for key in examples.keys)
    return splits


def _graded(path: Path, images: Path, usage: str | None) -> Examples:
    """The rows of a table with columns image, level and perhaps Usage, of which one use is wanted."""
    rows = csv.DictReader(read_text(path).splitlines())
    needed = {"image", "level"} | ({"Usage"} if usage else set())
    if absent := needed - set(rows.fieldnames or ()):
        raise DataError(f"{path} has no column {', '.join(sorted(absent))}; get it again")
    keys, labels = [], []
    for row in rows:
        if usage is None or row["Usage"] == usage:
            keys.append(row["image"])
            labels.append(number(row["level"] or "", 0, len(CLASSES) - 1, f"{path}: {row['image']}"))
    if not keys:
        raise DataError(f"{path} has no rows" + (f" whose Usage is {usage}" if usage else "") + "; get it again")
    return Examples(keys, labels, lambda i: prepare(images / f"{keys[i]}.jpeg"))


def prepare(path: Path) -> bytes:
    """A JPEG of 540 pixels a side, or less where the eyeball is cut off: the eyeball minus its local average, in grey.

    Raises:
        DataError: it cannot be read or decoded, or OpenCV is missing.
    """
    cv2 = opencv("diabetic_retinopathy")
    image = decode(cv2, path, content(path))
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
    """Half of what is not dark in the middle row; half of the height for photographs in which nothing is seen."""
    brightness = image[image.shape[0] // 2].sum(axis=1)
    radius = (brightness > brightness.mean() / 10).sum() / 2
    return radius if radius >= 1 else image.shape[0] / 2


SOURCES = (
    Source("diabetic_retinopathy", "diabetic_retinopathy", (TRAIN, TEST, TRAIN_LABELS, TEST_LABELS), CLASSES, read),
)
