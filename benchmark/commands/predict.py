"""The verb `predict`: classes of the images in a folder, by a trained cell, prepared as its own images were."""

import argparse
import csv
import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...datasets.cache import Preprocessing
from ...datasets.pixels import CORES, decode, in_order
from ...datasets.task import DataError
from ..checkpoints.restore import TrainedModel, load_trained
from ..engine.numerics import EVAL_BATCH
from ..storage.json_io import write_atomically

COLUMNS = ("file", "class", "name", "probability")


def predict(options: argparse.Namespace) -> int:
    """`vtab-peft predict FOLDER --adapter EXPORTED`; exit status 1 if there are images that cannot be read.

    Raises:
        ValueError: the folder is not there or has no images, or the cell cannot be restored.
    """
    files = images_in(options.folder)
    cell = load_trained(str(options.adapter), options.results, options.weights, options.plugin)
    torch.set_num_threads(options.threads)
    damaged: list[DataError] = []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for file, label, probability in predictions(cell, files, damaged):
        name = cell.class_names[label] if cell.class_names else ""
        writer.writerow([file.relative_to(options.folder), label, name, f"{probability:.6f}"])
    if options.out:
        write_atomically(options.out, text.getvalue().encode(errors="backslashreplace"))  # as the terminal shows it
    else:
        print(text.getvalue(), end="")
    for error in damaged:
        print(f"left out: {error}", file=sys.stderr)
    return 1 if damaged else 0


def images_in(folder: Path) -> list[Path]:
    """Every file below `folder` whose ending Pillow knows as an image's, by name.

    Raises:
        ValueError: there is none.
    """
    endings = Image.registered_extensions()
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give one with images in it")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    if not found:
        raise ValueError(f"{folder} has no images: no file in it ends as an image's, such as .jpg or .png")
    return found


def predictions(cell: TrainedModel, files: list[Path], damaged: list[DataError]) -> Iterator[tuple[Path, int, float]]:
    """File, class and its probability, in order; those that cannot be read go to `damaged`."""
    recipe = cell.spec.recipe
    preprocessing = Preprocessing(cell.backbone.image_size, cell.spec.interpolation, recipe.framing)  # pyright: ignore[reportArgumentType]

    def read(file: Path) -> tuple[Path, np.ndarray]:
        return file, decode(file, preprocessing)

    with ThreadPoolExecutor(CORES) as pool:
        whole = _whole(in_order(read, files, pool), damaged)
        while batch := list(islice(whole, EVAL_BATCH["cpu"])):
            names, pixels = zip(*batch, strict=True)
            likely = cell.logits(np.stack(pixels)).softmax(dim=1).max(dim=1)
            yield from zip(names, likely.indices.tolist(), likely.values.tolist(), strict=True)


def _whole(
    read: Iterator[tuple[Path, np.ndarray] | DataError], damaged: list[DataError]
) -> Iterator[tuple[Path, np.ndarray]]:
    for item in read:
        if isinstance(item, DataError):
            damaged.append(item)
        else:
            yield item
