"""Decode every image once into uint8 arrays on disk, shared by all runs that need the same pixels.

    <root>/images/<key>.npy                     [n, 3, height, width] uint8, one file a split
    <root>/labels/<key>.npy                     [n] int64
    <root>/tasks/<suite>/<name>-<key>.json      the manifest, written last: a task is cached if it exists;
                                                its modification time is that of the last use

Images and labels are named by their content, so that tasks with the same images (dsprites_loc and dsprites_ori) share
them.  Tasks whose images all have one small native size are stored at that size and stretched on the device.  Others
are stored at the size of the model's input, or larger for recipes with crops.  Files appear complete or not at all.
The manifest has a checksum of every array, which is compared in parts when a task is opened.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL

from .archive import provenance, read, with_real_paths
from .atomic_io import remove_temp_files, write_array
from .checksum import checksum, is_intact
from .identity import ImageInfos, Splits, data_hash, images_key, source_fingerprint
from .labels import label_warnings, repetition_warnings
from .manifest import Manifest, manifests, name_of, read_manifest
from .pixels import CORES, Preprocessing, decode, in_order, probe
from .reading import is_complete_array
from .task import SPLITS, DataError, SplitName, Task

FORMAT = 1
"""Version of this layout; manifests of other versions are not found."""
NATIVE_LIMIT = 96
"""Largest side in pixels of tasks stored at native size: that of patch_camelyon and smallnorb."""
OPENED = ("data", "provenance", "classes", "counts", "native")
"""Facts of a manifest that `CachedTask` repeats."""
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
    warnings: tuple[str, ...] = ()
    """Warnings about labels and repeated images, see labels.py."""
    replaced: tuple[Path, ...] = field(default=(), compare=False)
    """Damaged images that this build found and decoded again; runs that used them may be wrong."""

    def images(self, split: SplitName) -> np.ndarray:
        """[n, 3, height, width] uint8, mapped from disk; changes stay in memory."""
        return np.load(self.files[split][0], mmap_mode="c")

    def labels(self, split: SplitName) -> np.ndarray:
        """[n] int64"""
        return np.load(self.files[split][1])

    def training_splits(self, evaluated: SplitName) -> tuple[SplitName, ...]:
        """Return the splits that a run trains on: val is for training too, unless it is evaluated."""
        return ("train", "val") if evaluated == "test" else ("train",)


def default_root() -> Path:
    """Return `VTAB_PEFT_CACHE`, or `vtab-peft` in the user's cache folder.

    Raises:
        DataError: the home folder is not known.
    """
    given = os.environ.get("VTAB_PEFT_CACHE")
    folder = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vtab-peft"
    try:
        return folder.expanduser()
    except RuntimeError:
        raise DataError(f"the cache {folder} is in a home folder that does not exist; set VTAB_PEFT_CACHE") from None


def cached(task: Task, preprocessing: Preprocessing, root: Path, full: bool = False) -> CachedTask | None:
    """Return the task from the cache; None if it is missing, damaged, older than its sources or of another decoder.

    Arrays that changed since the last use are checked in full, others in a few blocks.

    Args:
        full: check every array in full.

    Raises:
        DataError: the task's lists or files cannot be used.
    """
    for path in _manifest_paths(task, preprocessing, root):
        manifest = read_manifest(path)
        if manifest is None or manifest.pillow != PIL.__version__ or manifest.stamp != source_fingerprint(task):
            continue
        if not all(map(is_complete_array, manifest.arrays(root))):
            continue
        if not manifest.checksums and os.access(path, os.W_OK):  # written by an older version
            manifest = _with_checksums(manifest, root)
            with suppress(OSError):
                manifest.save(path)
        if manifest.damaged(root, full or _changed_since(path, manifest.arrays(root))):
            continue
        _touch(path)
        labels: dict[SplitName, np.ndarray] = {name: np.load(file) for name, (_, file) in manifest.files(root).items()}
        return _open(task, preprocessing, root, manifest, labels)
    return None


def _changed_since(manifest: Path, arrays: list[Path]) -> bool:
    """Return True if an array is not older than the manifest, which every use touches; clocks of files are coarse."""
    try:
        return max(path.stat().st_mtime_ns for path in arrays) >= manifest.stat().st_mtime_ns
    except OSError:
        return True


def undecoded(task: Task, preprocessing: Preprocessing) -> CachedTask:
    """Return a task that is not decoded yet, with the counts of its lists; its data hash is unknown and empty.

    Raises:
        DataError: the task's lists cannot be used.
    """
    counts: dict[SplitName, int] = {split: sizes[0] for split, sizes in task.sizes.items()}
    if task.folder is not None:
        counts = {split: len(listing.files) for split, listing in read(task).items()}
    return CachedTask(task, preprocessing, "", task.provenance, task.classes, counts, native=False, files={})


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
        labels: dict[SplitName, np.ndarray] = {split: self.splits[split].labels for split in SPLITS}
        made = _open(self.task, self.preprocessing, self.root, manifest, labels)
        damaged = self.damaged(made)
        missing: ImageInfos = {
            split: found
            for split, found in infos.items()
            if made.files[split][0] in damaged or not is_complete_array(made.files[split][0])
        }
        for split in made.files.keys() - missing.keys():
            _touch(made.files[split][0])  # not in a manifest yet: only its age shows that it is in use
        needed = 3 * height * width * sum(len(found) for found in missing.values())
        try:
            self.require_space(made, needed)
            self.write(made, missing, preprocessing, (3, height, width))
            path, *_ = _manifest_paths(self.task, self.preprocessing, self.root)
            _with_checksums(manifest, self.root).save(path)
        except OSError as error:
            raise DataError(
                f"cannot write the cache of {self.task.label} ({needed / 1e6:,.1f} MB) in {self.root}: "
                f"{error.strerror or error}; free some space there, or set VTAB_PEFT_CACHE to another folder"
            ) from None
        return replace(made, replaced=tuple(damaged))

    def damaged(self, made: CachedTask) -> list[Path]:
        """Return the existing images that differ from the checksums that any manifest of the cache has for them."""
        known: dict[str, str] = {}
        for _, manifest in manifests(self.root):
            known |= manifest.checksums if manifest else {}
        images = [images for images, _ in made.files.values() if images.exists()]
        expected = [known.get(name_of(path, self.root)) for path in images]
        return [path for path, sums in zip(images, expected, strict=True) if sums and not is_intact(path, sums, True)]

    def require_space(self, made: CachedTask, needed: int) -> None:
        """Remove the files of killed builds, and raise `OSError` before a build that cannot fit on the disk."""
        folders = {file.parent for files in made.files.values() for file in files}
        for folder in [*folders, _manifest_paths(self.task, self.preprocessing, self.root)[0].parent]:
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

    def manifest(self, infos: ImageInfos, preprocessing: Preprocessing | None) -> Manifest:
        files = (str(image) for split in self.splits.values() for image in split.images)
        learned = {info.sha256 for split in ("train", "val") for info in infos[split]}
        return Manifest(
            task=self.task.label,
            classes=self.task.classes,
            counts={split: len(self.splits[split].images) for split in SPLITS},
            data=data_hash(self.task, self.splits, infos),
            folder=None if self.task.folder is None else str(self.task.folder),
            images={split: images_key(infos[split], preprocessing) for split in SPLITS},
            labels={split: hashlib.sha256(self.splits[split].labels.tobytes()).hexdigest() for split in SPLITS},
            native=preprocessing is None,
            pillow=PIL.__version__,
            repeated=sum(info.sha256 in learned for info in infos["test"]),
            preprocessing=self.preprocessing.cache_facts,
            provenance=provenance(self.task, files),
            stamp=self.fingerprint,
        )

    def each(self, work: Callable[[Any], T], items: Iterable[Any]) -> Iterator[T]:
        """Yield `work` of every item in order, on all threads; damaged items raise one `DataError` at the end."""
        damaged: list[str] = []
        for result in in_order(work, items, self.pool):
            self.advance(1)
            if isinstance(result, DataError):
                damaged.append(with_real_paths(str(result), self.task.folder))
            elif not damaged:
                yield result
            if len(damaged) == SHOWN:
                break
        if damaged:
            names = "".join(f"\n  {text}" for text in damaged)
            more = "\n  (and perhaps more)" if len(damaged) == SHOWN else ""
            raise DataError(
                f"{self.task.label}: unusable images; replace or remove them, and their lines in lists:{names}{more}"
            )

    def advance(self, images: int) -> None:
        self.done += images
        if self.progress is not None:
            self.progress(self.done, 2 * sum(len(split.images) for split in self.splits.values()))


def _manifest_paths(task: Task, preprocessing: Preprocessing, root: Path) -> tuple[Path, Path]:
    """Return the manifest's path and that of older versions, which did not include the decoder.

    Both differ by task, folder and preprocessing.
    """
    identity = [FORMAT, task.suite, task.name, task.version, str(task.folder), preprocessing.cache_facts]
    keys = [
        hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        for facts in ([*identity, PIL.__version__], identity)
    ]
    new, old = (root / "tasks" / task.suite / f"{task.name}-{key}.json" for key in keys)
    return new, old


def _with_checksums(manifest: Manifest, root: Path) -> Manifest:
    return replace(manifest, checksums={name_of(path, root): checksum(path) for path in manifest.arrays(root)})


def _open(
    task: Task, preprocessing: Preprocessing, root: Path, manifest: Manifest, labels: dict[SplitName, np.ndarray]
) -> CachedTask:
    facts: dict[str, Any] = {name: getattr(manifest, name) for name in OPENED}
    warnings = (*label_warnings(task, labels, manifest.classes), *repetition_warnings(task, manifest.repeated))
    return CachedTask(task=task, preprocessing=preprocessing, files=manifest.files(root), warnings=warnings, **facts)


def _touch(path: Path) -> None:
    """Record that a file was used now, unless the cache is read-only."""
    with suppress(OSError):
        os.utime(path)
