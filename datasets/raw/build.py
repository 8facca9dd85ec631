"""One task out of its original files, in the archive's layout.

<data>/<task>/images/<list>/NNNNNN.<ext>   <list> is train800, val200 or test in VTAB-1k, and
                                           train, val or test in FGVC; arrays as PNG, files and bytes unchanged
<data>/<task>/<list>.txt                   lines `images/<list>/NNNNNN.<ext> LABEL`, and the first two lists together
<data>/<task>/classes.txt                  the class names, one a line
<data>/<task>/manifest.json                written last: what was built, out of what, and by which version
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
from ..pixels import CORES, in_order
from ..task import PROCEDURAL_SUITES, SPLITS, DataError, SplitName, Task
from ..tasks import table
from .atomic_folder import atomic_folder
from .png import png
from .source import Examples, Source

HASHED = 2**30
"""Bytes up to which a raw file's SHA-256 goes into the manifest (ours: some seconds); of larger ones it is the size."""
SIGNATURES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp"}
"""How encoded images begin, and the ending of those that come without a name."""

Splits = Mapping[SplitName, Examples]
ProgressFn = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True)
class Built:
    """A task that can be used."""

    folder: Path
    counts: dict[SplitName, int]
    provenance: str
    made: bool
    """False where it was there already and was left alone."""


def build(
    source: Source,
    raw_root: Path,
    data_root: Path,
    tell: ProgressFn | None = None,
    again: bool = False,
    threads: int = CORES,
) -> Built:
    """Make `data_root`/<task> out of `raw_root`/<source.raw>; a whole task that is there is left alone.

    The folder appears whole or not at all: it may be killed, and two may build it at once.  `again` replaces
    what is there.

    Raises:
        DataError: a raw file is missing (with where to get it) or not as it should be, the folder is there and
            cannot be used, or it cannot be written.
    """
    folder = data_root.expanduser().resolve() / source.task
    row = replace(_row(source.task), folder=folder)
    if not again and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        return _as_it_is(row, folder)
    raw = raw_root.expanduser() / source.raw
    used = _raw_files(row, source, raw)
    try:
        splits = source.read(raw)
        _examine(row, source, splits)
        with atomic_folder(folder, again) as staged, ThreadPoolExecutor(threads) as pool:
            checksums = _Writer(staged, row, source, pool, tell).write(splits)
            manifest = _manifest(row, source, splits, checksums, raw, used)
            (staged / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
            read(replace(row, folder=staged))  # all that whoever uses it will ask of it
    except OSError as error:
        raise DataError(
            f"{row.label} cannot be built: {error}; nothing was left behind. See to it that {raw} can be read and "
            f"{data_root} be written, and that there is room, and start again"
        ) from None
    return Built(folder, manifest["counts"], manifest["provenance"], made=True)


def _row(name: str) -> Task:
    for (_, other), task in table().items():
        if other == name and task.suite not in PROCEDURAL_SUITES:
            return task
    raise DataError(f"{name!r} is no task that can be built; `vtab-peft list tasks` shows all")


def _as_it_is(row: Task, folder: Path) -> Built:
    verdict = check(row)
    if verdict.state != "found":
        raise DataError(
            f"{folder} is there and cannot be used ({verdict.problems[0]}); "
            "take it away, or say `--again` to replace it"
        )
    return Built(folder, verdict.counts, verdict.provenance, made=False)


def _raw_files(row: Task, source: Source, raw: Path) -> dict[str, Path]:
    """What every raw file's place is taken by; all that is missing in one message."""
    found, missing = {}, []
    for file in source.files:
        try:
            found[file.path] = file.find(raw)
        except DataError as error:
            missing.append(f"\n  {error}")
    if missing:
        raise DataError(f"{row.label} cannot be built:{''.join(missing)}")
    return found


def _examine(row: Task, source: Source, splits: Splits) -> None:
    """That counts, labels and keys are what they must be, before hours are spent on the images."""
    if source.class_names and len(source.class_names) != row.classes:
        raise DataError(f"{row.label} has {row.classes} classes, its source names {len(source.class_names)}")
    for split in SPLITS:
        examples, accepted = splits[split], row.sizes[split]
        if len(examples) not in accepted:
            wanted = " or ".join(f"{size:,}" for size in accepted)
            raise DataError(
                f"the raw files of {row.label} give {len(examples):,} {split} images and not {wanted}: "
                "they are not whole, or another version; get them again"
            )
        if len(examples.labels) != len(examples) or len(set(examples.keys)) != len(examples):
            raise DataError(f"{row.label}: the raw files name {split} images twice, or without a label")
        wrong = {int(label) for label in examples.labels if not 0 <= label < row.classes}
        if wrong:
            raise DataError(f"{row.label}: {split} has labels {sorted(wrong)[:3]} outside 0 to {row.classes - 1}")


@dataclass
class _Writer:
    """Fills a new folder."""

    folder: Path
    row: Task
    source: Source
    pool: ThreadPoolExecutor
    tell: ProgressFn | None
    done: int = 0

    def write(self, splits: Splits) -> dict[SplitName, str]:
        """Images, lists and class names; returns a checksum for each split over its images and labels, in order."""
        results = in_order(lambda job: _write_image(*job), self.jobs(splits), self.pool)
        checksums: dict[SplitName, str] = {}
        texts: dict[SplitName, str] = {}
        for split in SPLITS:
            digest, lines = hashlib.sha256(), []
            for label, result in zip(splits[split].labels, islice(results, len(splits[split])), strict=True):
                if isinstance(result, DataError):
                    raise result
                file, sha256 = result
                digest.update(f"{sha256} {label}\n".encode())
                lines.append(f"{file.relative_to(self.folder).as_posix()} {label}\n")
                self.advance(sum(len(examples) for examples in splits.values()))
            checksums[split], texts[split] = digest.hexdigest(), "".join(lines)
            (self.folder / self.official(LISTS[split])).write_text(texts[split])
        (self.folder / self.official(UNION)).write_text(texts["train"] + texts["val"])
        if self.source.class_names:
            (self.folder / "classes.txt").write_text("".join(f"{name}\n" for name in self.source.class_names))
        return checksums

    def jobs(self, splits: Splits) -> Iterator[tuple[Path, Examples, int]]:
        """Of every image in order: its place without ending, and which one it is."""
        for split in SPLITS:
            images = self.folder / "images" / Path(self.official(LISTS[split])).stem
            images.mkdir(parents=True)
            for position in range(len(splits[split])):
                yield images / f"{position:06d}", splits[split], position

    def official(self, names: Sequence[str]) -> str:
        """The name of a list: VTAB-1k's own is the first of those that are read."""
        return names[0] if self.row.suite == "vtab1k" else names[-1]

    def advance(self, of: int) -> None:
        self.done += 1
        if self.tell:
            self.tell(self.done, of)


def _write_image(place: Path, examples: Examples, position: int) -> tuple[Path, str]:
    """The file that now holds the picture, and the SHA-256 of its bytes."""
    picture = examples.picture(position)
    if isinstance(picture, np.ndarray):
        data, ending = png(picture), ".png"
    else:
        data, name = (picture, examples.keys[position]) if isinstance(picture, bytes) else _file(picture)
        endings = [ending for start, ending in SIGNATURES.items() if data.startswith(start)]
        if not endings:
            raise DataError(f"{name} is no image ({len(data):,} bytes that begin with {data[:8]!r}); get it again")
        ending = Path(name).suffix if isinstance(picture, Path) else endings[0]
    file = place.with_name(place.name + ending)
    file.write_bytes(data)
    return file, hashlib.sha256(data).hexdigest()


def _file(path: Path) -> tuple[bytes, str]:
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _manifest(
    row: Task, source: Source, splits: Splits, checksums: dict[SplitName, str], raw: Path, used: dict[str, Path]
) -> dict[str, Any]:
    stand_ins = [
        file.stand_in[1] for file in source.files if file.stand_in and used[file.path].name == file.stand_in[0]
    ]
    try:
        built_by = f"vtab-peft {version('vtab-peft')}"
    except PackageNotFoundError:
        built_by = "vtab-peft, not installed"
    return {
        "task": row.label,
        "source": ", ".join(stand_ins) or row.source,
        "provenance": "own" if stand_ins else row.provenance,
        "counts": {split: len(splits[split]) for split in SPLITS},
        "checksums": checksums,
        "raw": {path.relative_to(raw).as_posix(): _fingerprint(path) for path in used.values()},
        "built_by": built_by,
        "keys": {split: list(splits[split].keys) for split in ("train", "val")},
    }


def _fingerprint(path: Path) -> dict[str, str | int]:
    """SHA-256 of a file that is not too large, else the size; of a folder, how many files of what size in all."""
    if path.is_dir():
        sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        return {"files": len(sizes), "bytes": sum(sizes)}
    size = path.stat().st_size
    if size > HASHED:
        return {"bytes": size}
    with path.open("rb") as file:
        return {"bytes": size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
