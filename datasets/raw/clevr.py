"""CLEVR v1.0, the number of objects and the distance of the nearest (tensorflow/datasets datasets/clevr, version 3.1.0;
labels: google-research/task_adaptation data/clevr.py).  The test split is CLEVR's validation set.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..archive import read_text
from ..task import DataError, SplitName
from .files import require
from .source import Examples, RawFile, Source, first_1000, tfds_order

COUNTS = tuple(f"{count} objects" for count in range(3, 11))
LIMITS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
"""Distance from the camera, in the units of `pixel_coords`."""
DISTANCES = ("up to 8", "8 to 8.5", "8.5 to 9", "9 to 9.5", "9.5 to 10", "above 10")
ARCHIVE = RawFile(
    "CLEVR_v1.0",
    "https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip",
    # tensorflow/datasets datasets/clevr/checksums.tsv
    "5cd61cf1096ed20944df93c9adb31e74d189b8459a94f54ba00090e5c59936d1",
)

Label = Callable[[list[float]], int | None]
"""From the distances of a scene's objects to the label; None where there is none."""


def read(raw: Path, label: Label) -> dict[SplitName, Examples]:
    """The key is the file's name, `CLEVR_train_000000.png`."""
    root = ARCHIVE.find(raw)
    train, val = _scenes(root, "train", label), _scenes(root, "val", label)
    first = first_1000(train, tfds_order(train.keys, "train"), len(train) * 90 // 100)
    splits: dict[SplitName, Examples] = {**first, "test": val.take(tfds_order(val.keys, "validation"))}
    for split, examples in splits.items():
        require(root / "images" / ("val" if split == "test" else "train") / key for key in examples.keys)
    return splits


def count(depths: list[float]) -> int | None:
    """0 for three objects, up to 7 for ten."""
    return len(depths) - 3 if 3 <= len(depths) <= 10 else None


def distance(depths: list[float]) -> int | None:
    """In how many of `LIMITS` the nearest object comes later, minus one; TFDS keeps distances in 32 bits."""
    nearest = np.float32(min(depths, default=0.0))
    return int(np.searchsorted(LIMITS, nearest)) - 1 if LIMITS[0] < nearest <= LIMITS[-1] else None


def _scenes(root: Path, part: str, label: Label) -> Examples:
    path = root / "scenes" / f"CLEVR_{part}_scenes.json"
    try:
        scenes = json.loads(read_text(path), object_hook=_depths)["scenes"]
        keys = [name for name, _ in scenes]
        labels = [label([float(depth) for depth in depths]) for _, depths in scenes]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DataError(f"{path} does not describe scenes with objects ({error}); unpack it again") from None
    if None in labels:
        raise DataError(f"{path}: the objects of {keys[labels.index(None)]} give it no label; unpack it again")
    return Examples(keys, [one for one in labels if one is not None], lambda i: root / "images" / part / keys[i])


def _depths(entry: dict[str, Any]) -> Any:
    """Of an object its distance, of a scene its file and its objects; all the rest would fill gigabytes."""
    if "pixel_coords" in entry:
        return entry["pixel_coords"][2]
    return (entry["image_filename"], entry["objects"]) if "objects" in entry else entry


SOURCES = (
    Source("clevr_count", "clevr", (ARCHIVE,), COUNTS, partial(read, label=count)),
    Source("clevr_dist", "clevr", (ARCHIVE,), DISTANCES, partial(read, label=distance)),
)
