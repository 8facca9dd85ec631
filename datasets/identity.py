"""Hashes that identify the data of a task, and that tell if a cached task is out of date."""

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
    """Return a hash over lists, labels, and the path, size and modification time of each image.

    The sources of procedural tasks are all Python files beside the loader.

    Raises:
        DataError: the lists cannot be used, or a listed image cannot be read.
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
                shown = Path(path).parent.resolve() / Path(path).name  # `images` of class folders is a link to them
                raise DataError(f"{task.label}: {shown} cannot be read: {error.strerror}") from None
            digest.update(f"{file} {label} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def data_hash(task: Task, splits: Splits, infos: ImageInfos) -> str:
    """Return 16 hexadecimal digits over the ordered images and labels of each split and the number of classes."""
    digest = hashlib.sha256(f"{task.classes} classes\n".encode())
    for split in SPLITS:
        digest.update(f"{split} {len(infos[split])}\n".encode())
        for info, label in zip(infos[split], splits[split].labels, strict=True):
            digest.update(f"{info.sha256} {label}\n".encode())
    return digest.hexdigest()[:16]


def images_key(infos: list[ImageInfo], preprocessing: Preprocessing | None) -> str:
    """Return a hash over images and their preprocessing; it includes Pillow's version, since decoders differ."""
    made_with = [PIL.__version__, preprocessing.cache_facts if preprocessing else "native"]
    digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode())
    for info in infos:
        digest.update(info.sha256.encode())
    return digest.hexdigest()
