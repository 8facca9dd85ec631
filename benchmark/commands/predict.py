"""The command `predict`: classify the images in a folder with a trained adapter, preprocessed as in its training."""

import argparse
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...datasets.labelled import endings_in_words
from ...datasets.pixels import CORES, decode, in_order
from ...datasets.task import DataError
from ..checkpoints.restore import TrainedModel, load_trained
from ..engine.device import use_threads
from ..escaping import csv_text
from ..plan import preprocessing_of
from ..reporting.wording import pluralize
from ..storage.json_io import check_writable, write_atomically

COLUMNS = ("file", "class", "name", "probability")
SHOWN = 5
"""Extensions of other files that a message names (our choice)."""


def predict(options: argparse.Namespace) -> int:
    """Run `vtab-peft predict FOLDER --adapter RUN`; return 1 if an image or a folder cannot be read.

    Raises:
        ValueError: the output cannot be written, the folder does not exist or has no images, or the run cannot be
            restored.
    """
    if options.out:
        check_writable(options.out)
    found = images_in(options.folder)
    run = load_trained(str(options.adapter), options.results, options.weights, options.plugin, options.backbone)
    use_threads(options.threads)
    if options.threads != run.numerics.threads:
        threads = run.numerics.threads
        print(f"note: for exactly the numbers of the run use --threads {threads}, as in training", file=sys.stderr)
    table: list[Sequence[Any]] = [COLUMNS]
    skipped = [*found.unreadable]
    for row in predictions(run, found.files):
        if isinstance(row, DataError):
            skipped.append(str(row))
            continue
        file, label, probability = row
        name = run.class_names[label] if run.class_names else ""
        table.append([file.relative_to(options.folder), label, name, f"{probability:.6f}"])
    if options.out:
        write_atomically(options.out, csv_text(table).encode())
        print(f"{pluralize(len(table) - 1, 'image')} classified: {options.out}")
    else:
        print(csv_text(table), end="")
    for text in skipped:
        print(f"skipped: {text}", file=sys.stderr)
    for text in found.notes:
        print(f"left out: {text}", file=sys.stderr)
    return 1 if skipped else 0


@dataclass
class FolderContent:
    """The images below a folder, and everything else that was found there."""

    files: list[Path] = field(default_factory=list)
    """Every file with an image extension that Pillow knows, hidden ones too, sorted."""
    unreadable: list[str] = field(default_factory=list)
    """Folders and links that cannot be followed, with the reason."""
    linked_twice: list[str] = field(default_factory=list)
    """Links to folders whose images are there under another name already."""
    others: Counter[str] = field(default_factory=Counter)
    """Number of other files by extension."""

    @property
    def notes(self) -> list[str]:
        """Return sentences about files that were left out without an error."""
        kinds = endings_in_words(self.others, SHOWN)
        unknown = f"{pluralize(self.others.total(), 'file')} without an image extension ({kinds})"
        return [*self.linked_twice, *([unknown] if self.others else [])]

    def add(self, file: Path) -> None:
        """Sort a file into the fields."""
        if (extension := file.suffix.lower()) in Image.registered_extensions():
            self.files.append(file)
        elif file.exists():
            self.others[extension] += 1
        else:
            self.unreadable.append(f"{file}: the link leads nowhere; correct or remove it")


def images_in(folder: Path) -> FolderContent:
    """Return the images below `folder`.  Links to folders are followed; each folder is read once, so loops end.

    Raises:
        ValueError: there is no image.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give a folder of images")
    found, seen = FolderContent(), {}
    tops = deque([folder])  # links wait until the folders that are no links are read: images keep their own names

    def refuse(error: OSError) -> None:
        found.unreadable.append(f"{error.filename}: the folder cannot be read ({error.strerror})")

    while tops:
        for place, below, names in os.walk(tops.popleft(), onerror=refuse):
            here, facts = Path(place), os.stat(place)  # noqa: PTH116 - `os.walk` yields texts
            first = seen.setdefault((facts.st_dev, facts.st_ino), here)
            if first is not here:
                found.linked_twice.append(f"{here}, because it is the same folder as {first}")
                below.clear()
                continue
            below.sort()
            tops.extend(link for link in map(here.joinpath, below) if link.is_symlink())
            for name in sorted(names):
                found.add(here / name)
    if not found.files:
        reasons = "".join(f"\n  {text}" for text in [*found.unreadable, *found.notes])
        raise ValueError(f"{folder} has no images: no file has an image extension such as .jpg or .png{reasons}")
    found.files.sort()
    return found


def predictions(run: TrainedModel, files: list[Path]) -> Iterator[tuple[Path, int, float] | DataError]:
    """Yield file, class and probability of each image in order, and a `DataError` for an image that is damaged."""
    preprocessing = preprocessing_of(run.spec)

    def read(file: Path) -> tuple[Path, np.ndarray]:
        return file, decode(file, preprocessing)

    with ThreadPoolExecutor(CORES) as pool:
        decoded = in_order(read, files, pool)
        while batch := list(islice(decoded, run.live.eval_batch)):
            images = [item for item in batch if not isinstance(item, DataError)]
            yield from (item for item in batch if isinstance(item, DataError))
            if images:
                names, pixels = zip(*images, strict=True)
                best = run.logits(np.stack(pixels)).softmax(dim=1).max(dim=1)
                yield from zip(names, best.indices.tolist(), best.values.tolist(), strict=True)
