"""Every image decoded once: uint8 arrays on disk, shared by whoever needs the same pixels.

    <root>/images/<key>.npy                     [n, 3, height, width] uint8, one file a split
    <root>/labels/<key>.npy                     [n] int64
    <root>/tasks/<suite>/<name>-<key>.json      the manifest, written last: a task is cached when it is there;
                                                its time is that of the last use

Images and labels are named by what they hold, so tasks with the same images (dsprites_loc and dsprites_ori)
share them.  Tasks of one small native size are kept at that size and squashed on the device; the rest is kept
at the size of the model's input, or a little larger where a part is to be cut off.  Files appear under their
names complete or not at all.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL

from .archive import provenance
from .atomic_io import atomic_write, is_whole, remove_temp_files, write_array
from .identity import ImageInfos, Splits, data_hash, images_key, source_fingerprint
from .pixels import CORES, Preprocessing, decode, in_order, probe
from .task import SPLITS, DataError, SplitName, Task

FORMAT = 1
"""Version of this layout; manifests of another one are not found."""
NATIVE_LIMIT = 96
"""Largest side in pixels of tasks kept at their own size: that of patch_camelyon and smallnorb."""
SHOWN = 10
"""CorruptRecord images named in one message (ours)."""

ProgressFn = Callable[[int, int], None]
"""Called with (images done, images in all); every image counts twice, once hashed and once decoded."""
T = TypeVar("T")


@dataclass(frozen=True)
class CachedTask:
    """A task whose pixels lie ready.  Opening a split is an act of its own, so nobody opens test by accident."""

    task: Task
    preprocessing: Preprocessing
    data: str
    """16 hexadecimal digits: hash of the ordered (image bytes, label) pairs of each split and the class count."""
    provenance: str
    classes: int
    counts: dict[SplitName, int]
    native: bool
    """Whether the images are at their own size, to be resized on the device."""
    files: dict[SplitName, tuple[Path, Path]]
    """Images and labels of each split."""

    def images(self, split: SplitName) -> np.memmap:
        """[n, 3, height, width] uint8, read from disk as it is used; what is written to it stays in memory."""
        return np.load(self.files[split][0], mmap_mode="c")

    def labels(self, split: SplitName) -> np.ndarray:
        """[n] int64"""
        return np.load(self.files[split][1])


def default_root() -> Path:
    """`VTAB_PEFT_CACHE`, else `vtab-peft` in the user's cache folder."""
    if given := os.environ.get("VTAB_PEFT_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vtab-peft"


def cached(task: Task, preprocessing: Preprocessing, root: Path) -> CachedTask | None:
    """The task as it lies in the cache; None when it is not there, not whole, or its sources have changed since.

    Raises:
        DataError: the task's lists or files cannot be used (any more).
    """
    path = _manifest_path(task, preprocessing, root)
    try:
        manifest = json.loads(path.read_text())
        found = _from_manifest(task, preprocessing, root, manifest)
        built_from = manifest["stamp"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged: to be built
    whole = all(is_whole(file) for files in found.files.values() for file in files)
    if not whole or built_from != source_fingerprint(task):
        return None
    _touch(path)
    return found


def build(
    task: Task, preprocessing: Preprocessing, root: Path, progress: ProgressFn | None = None, threads: int = CORES
) -> CachedTask:
    """Decode the task's images into the cache; arrays that are there already are used.

    Safe to kill, and to run twice at the same time.  Memory stays small: images are written as they are decoded.

    Raises:
        DataError: lists or images cannot be used (the first ten are named), or the cache cannot be written.
    """
    built_from = source_fingerprint(task)  # before the lists are read: a change while we build makes the cache outdated
    splits = task.load(task)
    with ThreadPoolExecutor(threads) as pool:
        return _Builder(task, preprocessing, root, splits, built_from, pool, progress).build()


@dataclass
class _Builder:
    """One build, and how far it has come."""

    task: Task
    preprocessing: Preprocessing
    root: Path
    splits: Splits
    built_from: str
    pool: ThreadPoolExecutor
    progress: ProgressFn | None
    done: int = 0

    def build(self) -> CachedTask:
        stream = self.each(probe, chain.from_iterable(self.splits[split].images for split in SPLITS))
        glances: ImageInfos = {split: list(islice(stream, len(self.splits[split].images))) for split in SPLITS}
        sizes = {seen.size for split in SPLITS for seen in glances[split]}
        small = len(sizes) == 1 and max(max(size) for size in sizes) <= NATIVE_LIMIT
        native = small and self.preprocessing.framing == "squash"  # the device squashes, and does nothing else
        form = None if native else self.preprocessing
        height, width = sizes.pop() if native else (self.preprocessing.side,) * 2
        manifest = self.manifest(glances, form)
        made = _from_manifest(self.task, self.preprocessing, self.root, manifest)
        missing: ImageInfos = {split: seen for split, seen in glances.items() if not is_whole(made.files[split][0])}
        for split in made.files.keys() - missing.keys():
            _touch(made.files[split][0])  # no manifest names it yet: only its age tells that it is in use
        needed = 3 * height * width * sum(len(seen) for seen in missing.values())
        try:
            self.make_room(made, needed)
            self.write(made, missing, form, (3, height, width))
            with atomic_write(_manifest_path(self.task, self.preprocessing, self.root)) as file:
                file.write(json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
        except OSError as error:
            raise DataError(
                f"cannot write the cache of {self.task.label} ({needed / 1e6:,.1f} MB) in {self.root}: "
                f"{error.strerror or error}; make room there, or set VTAB_PEFT_CACHE to another folder"
            ) from None
        return made

    def make_room(self, made: CachedTask, needed: int) -> None:
        """Clear away what killed builds left, and see to it that hours are not spent on a build that cannot end."""
        folders = {file.parent for files in made.files.values() for file in files}
        for folder in [*folders, _manifest_path(self.task, self.preprocessing, self.root).parent]:
            folder.mkdir(parents=True, exist_ok=True)
            remove_temp_files(folder)
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"only {free / 1e6:,.1f} MB are free")

    def write(self, made: CachedTask, missing: ImageInfos, form: Preprocessing | None, shape: tuple[int, ...]) -> None:
        """The labels of all splits, and the images of those that are `missing`."""
        for split in SPLITS:
            labels = self.splits[split].labels.astype(np.int64)
            write_array(made.files[split][1], labels.shape, labels.dtype, [labels])
        self.advance(sum(made.counts.values()) - sum(len(seen) for seen in missing.values()))
        jobs = (
            (image, seen)
            for split in missing
            for image, seen in zip(self.splits[split].images, missing[split], strict=True)
        )
        pixels = self.each(lambda job: decode(job[0], form, job[1].sha256), jobs)
        for split, seen in missing.items():
            write_array(made.files[split][0], (len(seen), *shape), np.dtype(np.uint8), islice(pixels, len(seen)))

    def manifest(self, glances: ImageInfos, form: Preprocessing | None) -> dict[str, Any]:
        files = (str(image) for split in self.splits.values() for image in split.images)
        return {
            "task": self.task.label,
            "classes": self.task.classes,
            "counts": {split: len(self.splits[split].images) for split in SPLITS},
            "data": data_hash(self.task, self.splits, glances),
            "folder": None if self.task.folder is None else str(self.task.folder),
            "images": {split: images_key(glances[split], form) for split in SPLITS},
            "labels": {split: hashlib.sha256(self.splits[split].labels.tobytes()).hexdigest() for split in SPLITS},
            "native": form is None,
            "pillow": PIL.__version__,
            "preprocessing": self.preprocessing.names,
            "provenance": provenance(self.task, files),
            "stamp": self.built_from,
        }

    def each(self, work: Callable[[Any], T], items: Iterable[Any]) -> Iterator[T]:
        """`work` of every item, in order, on all threads; the damaged ones together in one `DataError` at the end."""
        damaged: list[str] = []
        for result in in_order(work, items, self.pool):
            self.advance(1)
            if isinstance(result, DataError):
                damaged.append(str(result))
            elif not damaged:
                yield result
            if len(damaged) == SHOWN:
                break
        if damaged:
            names = "".join(f"\n  {text}" for text in damaged)
            more = "\n  (and perhaps more)" if len(damaged) == SHOWN else ""
            raise DataError(
                f"{self.task.label}: images that cannot be used; replace them or take them off the lists:{names}{more}"
            )

    def advance(self, images: int) -> None:
        self.done += images
        if self.progress is not None:
            self.progress(self.done, 2 * sum(len(split.images) for split in self.splits.values()))


def _manifest_path(task: Task, preprocessing: Preprocessing, root: Path) -> Path:
    """One manifest for each task, place it lies at, and preprocessing."""
    identity = [FORMAT, task.suite, task.name, task.version, str(task.folder), preprocessing.names]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return root / "tasks" / task.suite / f"{task.name}-{key}.json"


def array_files(manifest: dict[str, Any], root: Path) -> dict[SplitName, tuple[Path, Path]]:
    """Images and labels of each split that a manifest names."""
    return {
        split: (
            root / "images" / f"{manifest['images'][split]}.npy",
            root / "labels" / f"{manifest['labels'][split]}.npy",
        )
        for split in SPLITS
    }


def _from_manifest(task: Task, preprocessing: Preprocessing, root: Path, manifest: dict[str, Any]) -> CachedTask:
    facts = {field: manifest[field] for field in ("data", "provenance", "classes", "counts", "native")}
    return CachedTask(task=task, preprocessing=preprocessing, files=array_files(manifest, root), **facts)


def _touch(path: Path) -> None:
    """Note that it was used just now; in a cache that may only be read, nobody can and nobody need."""
    with suppress(OSError):
        os.utime(path)
