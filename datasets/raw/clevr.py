"""CLEVR v1.0: the number of objects, and the distance of the nearest one.

Images are those of tensorflow/datasets datasets/clevr, version 3.1.0; labels those of google-research/task_adaptation
data/clevr.py.  The test split is CLEVR's validation set.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..reading import LARGEST_FILE, read_text
from ..task import DataError, SplitName
from .files import require_files
from .source import Examples, Source, original_files, splits_from_train

COUNTS = tuple(f"{count} objects" for count in range(3, 11))
LIMITS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
"""Class limits of the distance from the camera, in the units of `pixel_coords`."""
DISTANCES = ("up to 8", "8 to 8.5", "8.5 to 9", "9 to 9.5", "9.5 to 10", "above 10")
FILES = original_files("clevr")

Label = Callable[[list[float]], int | None]
"""Return the label of a scene from its objects' distances, or None if it has none."""


def read(raw: Path, label: Label) -> dict[SplitName, Examples]:
    """Read the splits; a key is the file name, `CLEVR_train_000000.png`."""
    root = FILES[0].find(raw)
    train, val = _scenes(root, "train", label), _scenes(root, "val", label)
    splits = splits_from_train(train, val, val_percent=90, test_salt="validation")
    for split, examples in splits.items():
        require_files(root / "images" / ("val" if split == "test" else "train") / key for key in examples.keys)
    return splits


def count(depths: list[float]) -> int | None:
    """Return 0 for three objects, up to 7 for ten."""
    return len(depths) - 3 if 3 <= len(depths) <= 10 else None


def distance(depths: list[float]) -> int | None:
    """Return the interval of `LIMITS` that holds the nearest object; TFDS stores distances as float32."""
    nearest = np.float32(min(depths, default=0.0))
    return int(np.searchsorted(LIMITS, nearest)) - 1 if LIMITS[0] < nearest <= LIMITS[-1] else None


def _scenes(root: Path, part: str, label: Label) -> Examples:
    path = root / "scenes" / f"CLEVR_{part}_scenes.json"
    try:
        scenes = json.loads(read_text(path, LARGEST_FILE), object_hook=_depths)["scenes"]
        keys = [name for name, _ in scenes]
        labels = [label([float(depth) for depth in depths]) for _, depths in scenes]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise DataError(f"{path} does not describe scenes with objects ({error}); unpack it again") from None
    if None in labels:
        raise DataError(f"{path}: the objects of {keys[labels.index(None)]} give it no label; unpack it again")
    return Examples(keys, [one for one in labels if one is not None], lambda i: root / "images" / part / keys[i])


def _depths(entry: dict[str, Any]) -> Any:
    """Keep only distances, file names and object lists; the whole JSON would take gigabytes of memory."""
    if "pixel_coords" in entry:
        return entry["pixel_coords"][2]
    return (entry["image_filename"], entry["objects"]) if "objects" in entry else entry


SOURCES = (
    Source("clevr_count", "clevr", FILES, COUNTS, partial(read, label=count)),
    Source("clevr_dist", "clevr", FILES, DISTANCES, partial(read, label=distance)),
)
