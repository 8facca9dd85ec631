"""Decode every image once into uint8 arrays on disk, shared by all runs that need the same pixels.

    <root>/images/<key>.npy                     [n, 3, height, width] uint8, one file a split
    <root>/labels/<key>.npy                     [n] int64
    <root>/tasks/<suite>/<name>-<key>.json      the manifest, written last: a task is cached if it exists;
                                                its modification time is that of the last use

Images and labels are named by their content, so that tasks with the same images (dsprites_loc and dsprites_ori) share
them.  Tasks whose images all have one small native size are stored at that size and stretched on the device.  Others
are stored at the size of the model's input, or larger for recipes with crops.  Files appear complete or not at all.
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
from .atomic_io import atomic_write, is_complete_array, remove_temp_files, write_array
from .identity import ImageInfos, Splits, data_hash, images_key, source_fingerprint
from .pixels import CORES, Preprocessing, decode, in_order, probe
from .task import SPLITS, DataError, SplitName, Task

FORMAT = 1
"""Version of this layout; manifests of other versions are not found."""
NATIVE_LIMIT = 96
"""Largest side in pixels of tasks stored at native size: that of patch_camelyon and smallnorb."""
SHOWN = 10
"""Damaged images that a message names (our choice)."""

ProgressFn = Callable[[int, int], None]
"""Called with (images done, images in all); every image counts twice, once hashed and once decoded."""
T = TypeVar("T")


@dataclass(frozen=True)
class CachedTask:
    """A task with decoded pixels.  Splits are opened one by one, so that nothing opens test by accident."""

    task: Task
    preprocessing: Preprocessing
    data: str
    """Data hash, 16 hexadecimal digits (see `identity.data_hash`)."""
    provenance: str
    classes: int
    counts: dict[SplitName, int]
    native: bool
    """True if the images have their native size and are resized on the device."""
    files: dict[SplitName, tuple[Path, Path]]
    """Images and labels of each split."""

    def images(self, split: SplitName) -> np.memmap:
        """[n, 3, height, width] uint8, mapped from disk; changes stay in memory."""
        return np.load(self.files[split][0], mmap_mode="c")

    def labels(self, split: SplitName) -> np.ndarray:
        """[n] int64"""
        return np.load(self.files[split][1])


def default_root() -> Path:
    """Return `VTAB_PEFT_CACHE`, or `vtab-peft` in the user's cache folder."""
    if given := os.environ.get("VTAB_PEFT_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vtab-peft"


def cached(task: Task, preprocessing: Preprocessing, root: Path) -> CachedTask | None:
    """Return the task from the cache, or None if it is missing, incomplete or older than its sources.

    Raises:
        DataError: the task's lists or files cannot be used.
    """
    path = _manifest_path(task, preprocessing, root)
    try:
        manifest = json.loads(path.read_text())
        found = _from_manifest(task, preprocessing, root, manifest)
        fingerprint = manifest["stamp"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: to be built
    complete = all(is_complete_array(file) for files in found.files.values() for file in files)
    if not complete or fingerprint != source_fingerprint(task):
        return None
    _touch(path)
    return found


def build(
    task: Task, preprocessing: Preprocessing, root: Path, progress: ProgressFn | None = None, threads: int = CORES
) -> CachedTask:
    """Decode the task's images into the cache; existing arrays are reused.

    A build may be killed, and two may run at the same time.  Images are written as they are decoded, in little memory.

    Raises:
        DataError: lists or images cannot be used (the first ten are named), or the cache cannot be written.
    """
    fingerprint = source_fingerprint(task)  # before the lists are read: a later change makes the cache outdated
    splits = task.load(task)
    with ThreadPoolExecutor(threads) as pool:
        return _Builder(task, preprocessing, root, splits, fingerprint, pool, progress).build()


@dataclass
class _Builder:
    """One build and its progress."""

    task: Task
    preprocessing: Preprocessing
    root: Path
    splits: Splits
    fingerprint: str
    pool: ThreadPoolExecutor
    progress: ProgressFn | None
    done: int = 0

    def build(self) -> CachedTask:
        stream = self.each(probe, chain.from_iterable(self.splits[split].images for split in SPLITS))
        infos: ImageInfos = {split: list(islice(stream, len(self.splits[split].images))) for split in SPLITS}
        sizes = {info.size for split in SPLITS for info in infos[split]}
        small = len(sizes) == 1 and max(max(size) for size in sizes) <= NATIVE_LIMIT
        native = small and self.preprocessing.framing == "squash"  # the only resize mode on the device
        preprocessing = None if native else self.preprocessing
        height, width = sizes.pop() if native else (self.preprocessing.side,) * 2
        manifest = self.manifest(infos, preprocessing)
        made = _from_manifest(self.task, self.preprocessing, self.root, manifest)
        missing: ImageInfos = {
            split: found for split, found in infos.items() if not is_complete_array(made.files[split][0])
        }
        for split in made.files.keys() - missing.keys():
            _touch(made.files[split][0])  # not in a manifest yet: only its age shows that it is in use
        needed = 3 * height * width * sum(len(found) for found in missing.values())
        try:
            self.require_space(made, needed)
            self.write(made, missing, preprocessing, (3, height, width))
            with atomic_write(_manifest_path(self.task, self.preprocessing, self.root)) as file:
                file.write(json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
        except OSError as error:
            raise DataError(
                f"cannot write the cache of {self.task.label} ({needed / 1e6:,.1f} MB) in {self.root}: "
                f"{error.strerror or error}; free some space there, or set VTAB_PEFT_CACHE to another folder"
            ) from None
        return made

    def require_space(self, made: CachedTask, needed: int) -> None:
        """Remove the files of killed builds, and raise `OSError` before a build that cannot fit on the disk."""
        folders = {file.parent for files in made.files.values() for file in files}
        for folder in [*folders, _manifest_path(self.task, self.preprocessing, self.root).parent]:
            folder.mkdir(parents=True, exist_ok=True)
            remove_temp_files(folder)
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"only {free / 1e6:,.1f} MB are free")

    def write(
        self, made: CachedTask, missing: ImageInfos, preprocessing: Preprocessing | None, shape: tuple[int, ...]
    ) -> None:
        """Write the labels of all splits, and the images of the splits in `missing`."""
        for split in SPLITS:
            labels = self.splits[split].labels.astype(np.int64)
            write_array(made.files[split][1], labels.shape, labels.dtype, [labels])
        self.advance(sum(made.counts.values()) - sum(len(found) for found in missing.values()))
        jobs = (job for split in missing for job in zip(self.splits[split].images, missing[split], strict=True))
        pixels = self.each(lambda job: decode(job[0], preprocessing, job[1].sha256), jobs)
        for split, found in missing.items():
            write_array(made.files[split][0], (len(found), *shape), np.dtype(np.uint8), islice(pixels, len(found)))

    def manifest(self, infos: ImageInfos, preprocessing: Preprocessing | None) -> dict[str, Any]:
        files = (str(image) for split in self.splits.values() for image in split.images)
        return {
            "task": self.task.label,
            "classes": self.task.classes,
            "counts": {split: len(self.splits[split].images) for split in SPLITS},
            "data": data_hash(self.task, self.splits, infos),
            "folder": None if self.task.folder is None else str(self.task.folder),
            "images": {split: images_key(infos[split], preprocessing) for split in SPLITS},
            "labels": {split: hashlib.sha256(self.splits[split].labels.tobytes()).hexdigest() for split in SPLITS},
            "native": preprocessing is None,
            "pillow": PIL.__version__,
            "preprocessing": self.preprocessing.cache_facts,
            "provenance": provenance(self.task, files),
            "stamp": self.fingerprint,
        }

    def each(self, work: Callable[[Any], T], items: Iterable[Any]) -> Iterator[T]:
        """Yield `work` of every item in order, on all threads; damaged items raise one `DataError` at the end."""
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
                f"{self.task.label}: unusable images; replace them or remove them from the lists:{names}{more}"
            )

    def advance(self, images: int) -> None:
        self.done += images
        if self.progress is not None:
            self.progress(self.done, 2 * sum(len(split.images) for split in self.splits.values()))


def _manifest_path(task: Task, preprocessing: Preprocessing, root: Path) -> Path:
    """Return the manifest's path, which differs by task, folder and preprocessing."""
    identity = [FORMAT, task.suite, task.name, task.version, str(task.folder), preprocessing.cache_facts]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return root / "tasks" / task.suite / f"{task.name}-{key}.json"


def array_files(manifest: dict[str, Any], root: Path) -> dict[SplitName, tuple[Path, Path]]:
    """Return the images and labels of each split that a manifest names."""
    images, labels = manifest["images"], manifest["labels"]
    return {
        split: (root / "images" / f"{images[split]}.npy", root / "labels" / f"{labels[split]}.npy") for split in SPLITS
    }


def _from_manifest(task: Task, preprocessing: Preprocessing, root: Path, manifest: dict[str, Any]) -> CachedTask:
    facts = {field: manifest[field] for field in ("data", "provenance", "classes", "counts", "native")}
    return CachedTask(task=task, preprocessing=preprocessing, files=array_files(manifest, root), **facts)


def _touch(path: Path) -> None:
    """Record that a file was used now, unless the cache is read-only."""
    with suppress(OSError):
        os.utime(path)
