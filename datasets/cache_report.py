"""What lies in the cache, and what of it nobody can use any more.

Only files that the cache itself names are looked at: should `VTAB_PEFT_CACHE` point at a folder that holds
something else as well, that is safe.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .atomic_io import DAY, UNFINISHED, is_abandoned
from .cache import array_files
from .task import DataError

ARRAY = re.compile(r"[0-9a-f]{64}\.npy")
MANIFEST = re.compile(r".+-[0-9a-f]{16}\.json")
Reason = Literal["unfinished", "damaged", "source gone", "unnamed"]
"""Left by a killed build; a manifest that cannot be read; the task's folder is not there; no manifest names it."""


@dataclass(frozen=True)
class Entry:
    """A task in the cache, as one manifest describes it."""

    manifest: Path
    task: str
    """`vtab1k/cifar`"""
    form: str
    """Of its pixels: `own size`, or what they were made for, such as `224 bicubic`."""
    arrays: frozenset[Path]
    """Tasks with the same images name the same arrays."""
    bytes: int
    """Of the arrays, those that are shared included."""
    used: float
    """When a run last looked it up, in seconds since 1970."""
    folder: Path | None
    """Its source; None for tasks painted by code, and for manifests older than this record."""

    @property
    def source_gone(self) -> bool:
        return self.folder is not None and not self.folder.is_dir()


@dataclass(frozen=True)
class Removable:
    """A file that can go, and why."""

    path: Path
    why: Reason
    bytes: int


@dataclass(frozen=True)
class CacheReport:
    """All that lies in a cache."""

    root: Path
    entries: tuple[Entry, ...]
    """Sorted by task and form."""
    useless: tuple[Removable, ...]
    """In the order in which it may go: manifests before the arrays they name."""
    waiting: int
    """Bytes of arrays that no manifest names yet and that are younger than a day: they may be of a running build."""
    bytes: int
    """Of all files of the cache, arrays of several tasks counted once."""


def survey(root: Path) -> CacheReport:
    """Look at everything in the cache; nothing is changed."""
    entries, damaged = _manifests(root)
    gone = [entry for entry in entries if entry.source_gone]
    named = {array for entry in entries if not entry.source_gone for array in entry.arrays}
    arrays = [path for kind in ("images", "labels") for path in _files(root / kind, ARRAY)]
    # An array that is younger than its manifest is in the hands of another build, which has none yet.
    left = {array for entry in gone for array in entry.arrays if _time(array) <= entry.used} - named
    loose = [path for path in arrays if path not in named | left]
    old = {path for path in loose if time.time() - _time(path) > DAY}
    folders = [root / "images", root / "labels", *(root / "tasks").glob("*")]
    unfinished = [path for folder in folders for path in _files(folder, UNFINISHED)]
    return CacheReport(
        root,
        tuple(entries),
        useless=(
            *_useless(damaged, "damaged"),
            *_useless([entry.manifest for entry in gone], "source gone"),
            *_useless([path for path in arrays if path in left], "source gone"),
            *_useless([path for path in loose if path in old], "unnamed"),
            *_useless([path for path in unfinished if is_abandoned(path.name, _time(path))], "unfinished"),
        ),
        waiting=sum(_size(path) for path in loose if path not in old),
        bytes=sum(map(_size, [*arrays, *unfinished, *damaged, *(entry.manifest for entry in entries)])),
    )


def prune(found: CacheReport) -> None:
    """Remove what is useless.  It may be stopped at any time: no manifest is left that names a removed array.

    Raises:
        DataError: a file cannot be removed.
    """
    for file in found.useless:
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot remove {file.path}: {error.strerror}; see to it that you may write there"
            ) from None


def _manifests(root: Path) -> tuple[list[Entry], list[Path]]:
    """Those that can be read, and those that cannot."""
    entries, damaged = [], []
    for folder in (root / "tasks").glob("*"):
        for path in _files(folder, MANIFEST):
            try:
                entries.append(_entry(path, root))
            except FileNotFoundError:
                continue  # another process has just removed it
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                damaged.append(path)
    return sorted(entries, key=lambda entry: (entry.task, entry.form, str(entry.folder))), damaged


def _entry(path: Path, root: Path) -> Entry:
    manifest = json.loads(path.read_text())
    arrays = frozenset(array for pair in array_files(manifest, root).values() for array in pair)
    folder = manifest.get("folder")
    return Entry(
        manifest=path,
        task=manifest["task"],
        form="own size" if manifest["native"] else " ".join(map(str, manifest["preprocessing"].values())),
        arrays=arrays,
        bytes=sum(map(_size, arrays)),
        used=_time(path),
        folder=Path(folder) if folder else None,
    )


def _files(folder: Path, name: re.Pattern[str]) -> Iterator[Path]:
    return (path for path in sorted(folder.glob("*")) if name.fullmatch(path.name))


def _useless(paths: Iterable[Path], why: Reason) -> Iterator[Removable]:
    return (Removable(path, why, _size(path)) for path in paths)


def _size(path: Path) -> int:
    """0 where it is not there, or not there any more."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _time(path: Path) -> float:
    """Of the last change; now where it is not there any more."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
