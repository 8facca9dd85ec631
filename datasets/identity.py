"""What makes two builds of a task the same data, and a cached one out of date."""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import PIL

from .archive import provenance
from .pixels import Glance, Preprocessing
from .tasks import SPLITS, DataError, Split, SplitName, Task

Splits = dict[SplitName, Split]
Glances = dict[SplitName, list[Glance]]


def stamp(task: Task, splits: Splits | None = None) -> str:
    """Changes when the sources do: lists, labels, and each image's path, size and time of change.

    Of procedural tasks the source is the file that makes them.
    """
    if task.folder is None:
        return hashlib.sha256(Path(str(sys.modules[task.load.__module__].__file__)).read_bytes()).hexdigest()
    digest = hashlib.sha256(f"{task.classes}".encode())
    splits = splits or task.load(task)
    digest.update(provenance(task, splits).encode())
    for split in SPLITS:
        digest.update(f"\n{split}\n".encode() + splits[split].labels.tobytes())
        for image in splits[split].images:
            try:
                facts = Path(str(image)).stat()
            except OSError as error:
                raise DataError(f"{task.label}: {image} cannot be read: {error.strerror}") from None
            digest.update(f"{image} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def data_hash(task: Task, splits: Splits, glances: Glances) -> str:
    digest = hashlib.sha256(f"{task.classes} classes\n".encode())
    for split in SPLITS:
        digest.update(f"{split} {len(glances[split])}\n".encode())
        for seen, label in zip(glances[split], splits[split].labels, strict=True):
            digest.update(f"{seen.sha256} {label}\n".encode())
    return digest.hexdigest()[:16]


def images_key(glances: list[Glance], form: Preprocessing | None) -> str:
    """Names an array by the images in it and how they were decoded; decoders differ between Pillow's versions."""
    made_with = [PIL.__version__, asdict(form) if form else "native"]
    digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode())
    for seen in glances:
        digest.update(seen.sha256.encode())
    return digest.hexdigest()
