"""What makes two builds of a task the same data, and a cached one out of date."""

import hashlib
import json
import os
import sys
from itertools import chain
from pathlib import Path

import PIL

from .archive import provenance, read
from .pixels import ImageInfo, Preprocessing
from .task import SPLITS, DataError, Split, SplitName, Task

Splits = dict[SplitName, Split]
ImageInfos = dict[SplitName, list[ImageInfo]]


def source_fingerprint(task: Task) -> str:
    """Changes when the sources do: lists, labels, and each image's path, size and time of change.

    Of procedural tasks the source is the code that makes them: all Python files beside the loader's.

    Raises:
        DataError: the lists cannot be used, or a listed image cannot be looked at.
    """
    digest = hashlib.sha256(f"{task.classes}".encode())
    if task.folder is None:
        for path in sorted(Path(str(sys.modules[task.load.__module__].__file__)).parent.glob("*.py")):
            digest.update(path.read_bytes())
        return digest.hexdigest()
    listings = read(task)
    digest.update(provenance(task, chain.from_iterable(listing.files for listing in listings.values())).encode())
    for split in SPLITS:
        digest.update(f"\n{split}\n".encode())
        for file, label in zip(listings[split].files, listings[split].labels, strict=True):
            path = f"{task.folder}/{file}"
            try:
                facts = os.stat(path)  # noqa: PTH116 - a `Path` for each of 75,000 files would take seconds
            except OSError as error:
                raise DataError(f"{task.label}: {path} cannot be read: {error.strerror}") from None
            digest.update(f"{file} {label} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def data_hash(task: Task, splits: Splits, glances: ImageInfos) -> str:
    digest = hashlib.sha256(f"{task.classes} classes\n".encode())
    for split in SPLITS:
        digest.update(f"{split} {len(glances[split])}\n".encode())
        for seen, label in zip(glances[split], splits[split].labels, strict=True):
            digest.update(f"{seen.sha256} {label}\n".encode())
    return digest.hexdigest()[:16]


def images_key(glances: list[ImageInfo], form: Preprocessing | None) -> str:
    """Names an array by the images in it and how they were decoded; decoders differ between Pillow's versions."""
    made_with = [PIL.__version__, form.names if form else "native"]
    digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode())
    for seen in glances:
        digest.update(seen.sha256.encode())
    return digest.hexdigest()
