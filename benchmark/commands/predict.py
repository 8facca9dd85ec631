"""The command `predict`: classify the images in a folder with a trained adapter, preprocessed as in its training."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...datasets.cache import Preprocessing
from ...datasets.pixels import CORES, decode, in_order
from ...datasets.task import DataError
from ..checkpoints.restore import TrainedModel, load_trained
from ..engine.numerics import EVAL_BATCH
from ..escaping import csv_text
from ..storage.json_io import write_atomically

COLUMNS = ("file", "class", "name", "probability")


def predict(options: argparse.Namespace) -> int:
    """Run `vtab-peft predict FOLDER --adapter RUN`; return 1 if an image cannot be read.

    Raises:
        ValueError: the folder does not exist or has no images, or the run cannot be restored.
    """
    files = images_in(options.folder)
    run = load_trained(str(options.adapter), options.results, options.weights, options.plugin)
    torch.set_num_threads(options.threads)
    table: list[Sequence[Any]] = [COLUMNS]
    damaged = []
    for row in predictions(run, files):
        if isinstance(row, DataError):
            damaged.append(row)
            continue
        file, label, probability = row
        name = run.class_names[label] if run.class_names else ""
        table.append([file.relative_to(options.folder), label, name, f"{probability:.6f}"])
    if options.out:
        write_atomically(options.out, csv_text(table).encode())
    else:
        print(csv_text(table), end="")
    for error in damaged:
        print(f"skipped: {error}", file=sys.stderr)
    return 1 if damaged else 0


def images_in(folder: Path) -> list[Path]:
    """Return every file below `folder` with an image extension that Pillow knows, sorted.

    Raises:
        ValueError: there is none.
    """
    extensions = Image.registered_extensions()
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give a folder of images")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in extensions and path.is_file())
    if not found:
        raise ValueError(f"{folder} has no images: no file has an image extension such as .jpg or .png")
    return found


def predictions(run: TrainedModel, files: list[Path]) -> Iterator[tuple[Path, int, float] | DataError]:
    """Yield file, class and probability of each image in order, and a `DataError` for an image that is damaged."""
    recipe = run.spec.recipe
    preprocessing = Preprocessing(run.backbone.image_size, run.spec.interpolation, recipe.framing)  # pyright: ignore[reportArgumentType]

    def read(file: Path) -> tuple[Path, np.ndarray]:
        return file, decode(file, preprocessing)

    with ThreadPoolExecutor(CORES) as pool:
        decoded = in_order(read, files, pool)
        while batch := list(islice(decoded, EVAL_BATCH["cpu"])):
            images = [item for item in batch if not isinstance(item, DataError)]
            yield from (item for item in batch if isinstance(item, DataError))
            if images:
                names, pixels = zip(*images, strict=True)
                best = run.logits(np.stack(pixels)).softmax(dim=1).max(dim=1)
                yield from zip(names, best.indices.tolist(), best.values.tolist(), strict=True)
