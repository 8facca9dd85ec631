"""List the content of the cache, and remove what nothing can use any more.

Only files with names of the cache are considered, so that this is safe if `VTAB_PEFT_CACHE` also holds other files.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .archive import IMAGE_FOLDERS, origin
from .atomic_io import DAY, UNFINISHED, is_abandoned
from .manifest import Manifest, manifests
from .task import DataError

ARRAY = re.compile(r"[0-9a-f]{64}\.npy")
LISTS = re.compile(r"[0-9a-f]{64}")
"""Folder with the lists of class folders."""
Reason = Literal["unfinished", "damaged", "source gone", "unnamed"]
"""Left by a killed build; an unreadable manifest; a task whose folder is gone; an array that no manifest names."""


@dataclass(frozen=True)
class Entry:
    """A cached task, as its manifest describes it."""

    manifest: Path
    task: str
    """Label, such as `vtab1k/cifar`."""
    form: str
    """Form of the pixels: `own size` (native), or the preprocessing, such as `224 bicubic`."""
    arrays: frozenset[Path]
    """Arrays that the manifest names; tasks with the same images share them."""
    bytes: int
    """Size of the arrays, including shared ones."""
    used: float
    """Time of the last use in seconds since 1970."""
    folder: Path | None
    """Source folder, or class folders; None for procedural tasks and for old manifests without this field."""

    @property
    def source_gone(self) -> bool:
        return self.folder is not None and not self.folder.is_dir()


@dataclass(frozen=True)
class Removable:
    """A file that can be removed, and the reason."""

    path: Path
    why: Reason
    bytes: int


@dataclass(frozen=True)
class CacheReport:
    """Content of a cache."""

    root: Path
    entries: tuple[Entry, ...]
    """Cached tasks, sorted by task and form."""
    useless: tuple[Removable, ...]
    """Removable files in the order of removal: manifests before the arrays they name."""
    waiting: int
    """Bytes of arrays without a manifest that are younger than a day and may belong to a running build."""
    bytes: int
    """Size of all files of the cache but the lists of class folders in use; shared arrays count once."""


def survey(root: Path) -> CacheReport:
    """Inspect the cache without changing it."""
    entries, damaged = _manifests(root)
    gone = [entry for entry in entries if entry.source_gone]
    named = {array for entry in entries if not entry.source_gone for array in entry.arrays}
    arrays = [path for kind in ("images", "labels") for path in _files(root / kind, ARRAY)]
    # An array younger than its manifest is in use by another build, which has no manifest yet.
    orphaned = {array for entry in gone for array in entry.arrays if _time(array) <= entry.used} - named
    loose = [path for path in arrays if path not in named | orphaned]
    old = [path for path in loose if time.time() - _time(path) > DAY]
    lists = list(_lists_of_gone(root))
    folders = [root / "images", root / "labels", *(root / "tasks").glob("*")]
    unfinished = [path for folder in folders for path in _files(folder, UNFINISHED)]
    return CacheReport(
        root,
        tuple(entries),
        useless=(
            *_removable(damaged, "damaged"),
            *_removable([entry.manifest for entry in gone], "source gone"),
            *_removable([path for path in arrays if path in orphaned], "source gone"),
            *_removable(lists, "source gone"),
            *_removable(old, "unnamed"),
            *_removable([path for path in unfinished if is_abandoned(path.name, _time(path))], "unfinished"),
        ),
        waiting=sum(_size(path) for path in loose if path not in old),
        bytes=sum(map(_size, [*arrays, *unfinished, *damaged, *lists, *(entry.manifest for entry in entries)])),
    )


def prune(found: CacheReport) -> None:
    """Remove the useless files.  It may be killed: a manifest is always removed before its arrays.

    Raises:
        DataError: a file cannot be removed.
    """
    for file in found.useless:
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"cannot remove {file.path}: {error.strerror}; make its folder writable") from None
        if LISTS.fullmatch(file.path.parent.name):
            with suppress(OSError):  # not empty yet
                file.path.parent.rmdir()


def _manifests(root: Path) -> tuple[list[Entry], list[Path]]:
    """Return the manifests that can be read, and the paths of the others."""
    found = list(manifests(root))
    entries = [_entry(path, manifest, root) for path, manifest in found if manifest]
    damaged = [path for path, manifest in found if manifest is None]
    return sorted(entries, key=lambda entry: (entry.task, entry.form, str(entry.folder))), damaged


def _entry(path: Path, manifest: Manifest, root: Path) -> Entry:
    arrays = frozenset(manifest.arrays(root))
    return Entry(
        manifest=path,
        task=manifest.task,
        form="own size" if manifest.native else " ".join(map(str, manifest.preprocessing.values())),
        arrays=arrays,
        bytes=sum(map(_size, arrays)),
        used=_time(path),
        folder=origin(Path(manifest.folder)) if manifest.folder else None,
    )


def _files(folder: Path, name: re.Pattern[str]) -> Iterator[Path]:
    return (path for path in sorted(folder.glob("*")) if name.fullmatch(path.name))


def _lists_of_gone(root: Path) -> Iterator[Path]:
    """Yield the lists of class folders that are gone, and the link by which they are recognised last."""
    for folder in _files(root / IMAGE_FOLDERS, LISTS):
        if not origin(folder).is_dir():
            yield from sorted(folder.iterdir(), key=lambda path: path.is_symlink())


def _removable(paths: Iterable[Path], why: Reason) -> Iterator[Removable]:
    return (Removable(path, why, _size(path)) for path in paths)


def _size(path: Path) -> int:
    """Return the size of a file, or 0 if it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _time(path: Path) -> float:
    """Return the modification time of a file, or now if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
