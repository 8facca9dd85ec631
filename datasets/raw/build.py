"""Build one task from its original files, in the archive's layout.

<data>/<task>/images/<list>/NNNNNN.<ext>   <list> is train800, val200 or test in VTAB-1k, and train, val or test in
                                           FGVC; arrays become PNG, files and bytes are copied unchanged
<data>/<task>/<list>.txt                   lines `images/<list>/NNNNNN.<ext> LABEL`; also train and val together
<data>/<task>/classes.txt                  one class name a line
<data>/<task>/manifest.json                written last: what was built, from which files, by which version
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..archive import LISTS, UNION, read
from ..check import check
from ..official import FGVC, VTAB1K
from ..pixels import CORES, ending_of, in_order
from ..reading import expanded, read_bytes
from ..task import SPLITS, DataError, SplitName, Task
from .atomic_folder import atomic_folder, recover, remove_abandoned
from .png import png
from .source import Examples, Source

HASHED = 2**30
"""Largest raw file in bytes whose SHA-256 goes into the manifest (our choice: a few seconds); else its size does."""
SIGNATURES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp"}
SIGNATURES |= {b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif", b"P5": ".pgm", b"P6": ".ppm"}
"""File endings by the first bytes of common encoded images; Pillow knows the others."""

Splits = Mapping[SplitName, Examples]
ProgressFn = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True)
class Built:
    """A task that is ready to use."""

    folder: Path
    counts: dict[SplitName, int]
    provenance: str
    made: bool
    """False if the task existed before and was not changed."""


def build(
    source: Source,
    raw_root: Path,
    data_root: Path,
    progress: ProgressFn | None = None,
    again: bool = False,
    threads: int = CORES,
) -> Built:
    """Build `data_root`/<task> from `raw_root`/<source.raw>; an existing complete task is not changed.

    The folder appears complete or not at all: a build may be killed, and two may run at once.  `again` replaces an
    existing folder.

    Raises:
        DataError: a raw file is missing (with its address) or wrong, an existing folder cannot be used, or the new
            folder cannot be written.
    """
    folder = expanded(data_root).resolve() / source.task
    row = replace(_row(source.task), folder=folder)
    recover(folder)
    remove_abandoned(folder.parent)
    if not again and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        return _existing(row, folder)
    raw = expanded(raw_root) / source.raw
    used = _raw_files(row, source, raw)
    try:
        splits = source.read(raw)
        _validate(row, source, splits)
        with atomic_folder(folder, again) as staged, ThreadPoolExecutor(threads) as pool:
            checksums = TaskWriter(staged, row, splits, source.class_names, pool, progress).write()
            manifest = _manifest(row, source, splits, checksums, raw, used)
            (staged / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
            read(replace(row, folder=staged))  # the checks that every user of the folder will make
    except OSError as error:
        raise DataError(
            f"{row.label} cannot be built: {error}; nothing was left behind.  Make sure that {raw} is readable and "
            f"{data_root} writable with enough free space, and start again"
        ) from None
    return Built(folder, manifest["counts"], manifest["provenance"], made=True)


def _row(name: str) -> Task:
    try:
        return {**VTAB1K, **FGVC}[name]
    except KeyError:
        raise DataError(f"{name!r} is not a task that can be built; `vtab-peft list tasks` prints all") from None


def _existing(row: Task, folder: Path) -> Built:
    result = check(row)
    if result.state != "found":
        raise DataError(
            f"{folder} exists but cannot be used ({result.problems[0]}); remove it, or replace it with `--again`"
        )
    return Built(folder, result.counts, result.provenance, made=False)


def _raw_files(row: Task, source: Source, raw: Path) -> dict[str, Path]:
    """Return the location of every raw file; all missing files are reported in one error."""
    found, missing = {}, []
    for file in source.files:
        try:
            found[file.path] = file.find(raw)
        except DataError as error:
            missing.append(f"\n  {error}")
    if missing:
        raise DataError(f"{row.label} cannot be built:{''.join(missing)}")
    return found


def _validate(row: Task, source: Source, splits: Splits) -> None:
    """Check counts, labels and keys before the images, which may take hours."""
    if source.class_names and len(source.class_names) != row.classes:
        raise DataError(f"{row.label} has {row.classes} classes, its source names {len(source.class_names)}")
    for split in SPLITS:
        examples, accepted = splits[split], row.sizes[split]
        if len(examples) not in accepted:
            expected = " or ".join(f"{size:,}" for size in accepted)
            raise DataError(
                f"the raw files of {row.label} contain {len(examples):,} {split} images instead of {expected}: "
                "they are incomplete or another version; download them again"
            )
        if len(examples.labels) != len(examples) or len(set(examples.keys)) != len(examples):
            raise DataError(f"{row.label}: the raw files list {split} images twice or without a label")
        wrong = {int(label) for label in examples.labels if not 0 <= label < row.classes}
        if wrong:
            raise DataError(f"{row.label}: {split} has labels {sorted(wrong)[:3]} outside 0 to {row.classes - 1}")


@dataclass
class TaskWriter:
    """Writes images, lists and class names into a new folder."""

    folder: Path
    row: Task
    splits: Splits
    class_names: Sequence[str]
    pool: ThreadPoolExecutor
    progress: ProgressFn | None

    def write(self) -> dict[SplitName, str]:
        """Write everything; return a checksum for each split over its images and labels, in order."""
        results = in_order(_write_image, self.jobs(), self.pool)
        done, total = 0, sum(len(examples) for examples in self.splits.values())
        checksums: dict[SplitName, str] = {}
        texts: dict[SplitName, str] = {}
        for split in SPLITS:
            digest, lines = hashlib.sha256(), []
            labels = self.splits[split].labels
            for label, result in zip(labels, islice(results, len(labels)), strict=True):
                if isinstance(result, DataError):
                    raise result
                file, sha256 = result
                digest.update(f"{sha256} {label}\n".encode())
                lines.append(f"{file.relative_to(self.folder).as_posix()} {label}\n")
                done += 1
                if self.progress:
                    self.progress(done, total)
            checksums[split], texts[split] = digest.hexdigest(), "".join(lines)
            (self.folder / self.list_name(LISTS[split])).write_text(texts[split])
        (self.folder / self.list_name(UNION)).write_text(texts["train"] + texts["val"])
        if self.class_names:
            (self.folder / "classes.txt").write_text("".join(f"{name}\n" for name in self.class_names), "utf-8")
        return checksums

    def jobs(self) -> Iterator[tuple[Path, Examples, int]]:
        """Yield the target path without ending, the examples and the position of every image, in order."""
        for split in SPLITS:
            images = self.folder / "images" / Path(self.list_name(LISTS[split])).stem
            images.mkdir(parents=True)
            for position in range(len(self.splits[split])):
                yield images / f"{position:06d}", self.splits[split], position

    def list_name(self, names: Sequence[str]) -> str:
        """Return the official name of a list; VTAB-1k's is the first of the accepted names."""
        return names[0] if self.row.suite == "vtab1k" else names[-1]


def _write_image(job: tuple[Path, Examples, int]) -> tuple[Path, str]:
    """Write one picture; return its file and the SHA-256 of its bytes."""
    target, examples, position = job
    picture = examples.picture(position)
    if isinstance(picture, np.ndarray):
        data, ending = png(picture), ".png"
    else:
        data = picture if isinstance(picture, bytes) else read_bytes(picture)
        known = next((end for start, end in SIGNATURES.items() if data.startswith(start)), None) or ending_of(data)
        if known is None:
            name = examples.keys[position] if isinstance(picture, bytes) else picture
            raise DataError(f"{name} is not an image ({len(data):,} bytes, beginning {data[:8]!r}); download it again")
        ending = picture.suffix if isinstance(picture, Path) else known
    file = target.with_name(target.name + ending)
    file.write_bytes(data)
    return file, hashlib.sha256(data).hexdigest()


def _manifest(
    row: Task, source: Source, splits: Splits, checksums: dict[SplitName, str], raw: Path, used: dict[str, Path]
) -> dict[str, Any]:
    stand_ins = [
        file.stand_in[1] for file in source.files if file.stand_in and used[file.path].name == file.stand_in[0]
    ]
    return {
        "task": row.label,
        "source": ", ".join(stand_ins) or row.source,
        "provenance": "own" if stand_ins else row.provenance,
        "counts": {split: len(splits[split]) for split in SPLITS},
        "checksums": checksums,
        "raw": {path.relative_to(raw).as_posix(): _fingerprint(path) for path in used.values()},
        "built_by": built_by(),
        "keys": {split: list(splits[split].keys) for split in ("train", "val")},
    }


def built_by() -> str:
    """Return the version of this package."""
    try:
        return f"vtab-peft {version('vtab-peft')}"
    except PackageNotFoundError:
        return "vtab-peft, not installed"


def _fingerprint(path: Path) -> dict[str, str | int]:
    """Return size and SHA-256 of a file (only the size of a large one), or the file count and size of a folder."""
    if path.is_dir():
        sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        return {"files": len(sizes), "bytes": sum(sizes)}
    size = path.stat().st_size
    if size > HASHED:
        return {"bytes": size}
    with path.open("rb") as file:
        return {"bytes": size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
