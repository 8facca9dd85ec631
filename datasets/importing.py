"""Make tasks of labelled images in other layouts: copied into the archive's layout, or linked in the cache."""

import hashlib
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from .archive import IMAGE_FOLDERS, LISTS, read
from .atomic_io import atomic_write
from .cache import default_root
from .draw import TRAIN, VAL_SHARE, draw
from .first_of import first_of
from .folder import folder_task
from .huggingface import PREFIX, from_huggingface
from .labelled import LabelledImages, from_class_folders, from_csv
from .labels import label_warnings
from .pixels import CORES, in_order, verify_encoded
from .raw.atomic_folder import atomic_folder
from .raw.build import TaskWriter, built_by
from .raw.source import Examples
from .reading import expanded, read_bytes
from .task import SPLITS, DataError, SplitName, Task

IMAGE_FOLDER = "imagefolder:"
"""Prefix of a folder of class folders in `--tasks`."""
SHOWN = 10
"""Damaged or identical images that a message names (our choice)."""

Splits = dict[SplitName, Examples]
ProgressFn = Callable[[int, int], None]
"""Called with (images done, images in all); every image counts twice, once checked and once copied."""


@dataclass(frozen=True)
class Imported:
    """A task that was imported."""

    task: Task
    counts: dict[SplitName, int]
    warnings: tuple[str, ...]


def read_labelled(source: str) -> LabelledImages:
    """Read the labels of a source: a folder of class folders, a CSV file, or `hf:` with a name or a folder.

    Raises:
        DataError: the source does not exist, or has another layout.
    """
    if source.startswith(PREFIX):
        return from_huggingface(source.removeprefix(PREFIX))
    path = expanded(source).resolve()
    if path.is_dir() and any((path / name).exists() for name in chain.from_iterable(LISTS.values())):
        raise DataError(f"{path} is a task already: use --tasks {path}")
    if path.is_dir():
        return from_class_folders(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return from_csv(path)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    raise DataError(f"{path} is neither a folder of class folders nor a .csv file; docs/data.md shows both")


def import_task(
    source: str,
    folder: Path,
    train: int = TRAIN,
    val_share: float = VAL_SHARE,
    seed: int = 0,
    progress: ProgressFn = lambda _done, _total: None,
) -> Imported:
    """Copy labelled images into a new task folder, with splits as `draw` makes them.

    Raises:
        DataError: the source cannot be used, images are damaged (all are named, up to `SHOWN`), or the folder is not
            empty or cannot be written.
    """
    folder = expanded(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already; give a new or empty folder")
    if (place := expanded(source)).is_dir() and folder.is_relative_to(place.resolve()):
        raise DataError(f"{folder} lies in {source}, and would become a class of it; give a folder elsewhere")
    images = read_labelled(source)
    splits = draw(images, train, val_share, seed)
    total = sum(map(len, splits.values()))
    warnings = [*images.left_out, *_examine(splits, lambda done: progress(done, 2 * total))]
    facts = _facts(folder.name, f"imported from {images.name}: {_drawn(splits)} images in train and val, seed {seed}")
    row = Task(
        suite="own",
        name=folder.name,
        group="own",
        classes=len(images.class_names),
        sizes={},
        load=lambda _: {},
        source=source,
        licence="not stated",
        citation="not stated",
    )
    try:
        with atomic_folder(folder) as staged, ThreadPoolExecutor(CORES) as pool:
            copied = lambda done, _: progress(total + done, 2 * total)  # noqa: E731
            checksums = TaskWriter(staged, row, splits, images.class_names, pool, copied).write()
            manifest = {
                "task": row.label,
                "source": images.name,
                "provenance": "own",
                "counts": {split: len(splits[split]) for split in SPLITS},
                "checksums": checksums,
                "draw": {"train": train, "val_share": val_share, "seed": seed},
                "built_by": built_by(),
                "keys": {split: list(splits[split].keys) for split in SPLITS},
            }
            (staged / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
            (staged / "task.toml").write_text(facts, "utf-8")
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}; nothing was left behind") from None
    task = folder_task(folder)
    listings = read(task)
    warnings += label_warnings(task, {split: listing.labels for split, listing in listings.items()})
    return Imported(task, {split: len(listing.files) for split, listing in listings.items()}, tuple(warnings))


def image_folder_task(path: Path) -> Task:
    """Return a folder of class folders as a task, without copying images.

    The splits are those of `import_task` with its defaults.  Their lists are kept in the cache.

    Raises:
        DataError: the folder does not exist or has another layout, or the cache cannot be written.
    """
    root = expanded(path).resolve()
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; {IMAGE_FOLDER} takes a folder of class folders")
    images = from_class_folders(root)
    splits = draw(images)
    lists = {
        f"{split}.txt": "".join(f"images/{key} {label}\n" for key, label in zip(part.keys, part.labels, strict=True))
        for split, part in splits.items()
    }
    facts = _facts(root.name, f"class folders: {_drawn(splits)} images in train and val, seed 0")
    texts = {**lists, "classes.txt": "".join(f"{name}\n" for name in images.class_names), "task.toml": facts}
    folder = default_root() / IMAGE_FOLDERS / hashlib.sha256(str(root).encode(errors="surrogateescape")).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (folder / "images").symlink_to(root)
        for name, text in texts.items():
            data = text.encode(errors="surrogateescape")
            if not (folder / name).exists() or (folder / name).read_bytes() != data:
                with atomic_write(folder / name) as file:
                    file.write(data)
    except OSError as error:
        raise DataError(
            f"cannot write the lists of {root} to {folder}: {error.strerror}; free some space there, "
            "or set VTAB_PEFT_CACHE to another folder"
        ) from None
    return replace(folder_task(folder), left_out=images.left_out)


def _drawn(splits: Splits) -> int:
    """Return the number of images in train and val: fewer than asked for if the source has fewer."""
    return len(splits["train"]) + len(splits["val"])


def _facts(name: str, source: str) -> str:
    """Return a task.toml; characters that a task's name cannot have become hyphens."""
    known = {"name": re.sub(r"^\W+|[^\w.+-]+", "-", name).lstrip("-.+") or "images", "source": source}
    return "".join(f"{key} = {json.dumps(text, ensure_ascii=False)}\n" for key, text in known.items())


def _examine(splits: Splits, progress: Callable[[int], None]) -> list[str]:
    """Decode every image, and return warnings about images that are in two splits.

    Raises:
        DataError: images are damaged.
    """
    damaged: list[str] = []
    first: dict[str, tuple[SplitName, str]] = {}
    doubled: list[str] = []
    jobs: list[tuple[SplitName, Examples, int]] = [
        (split, splits[split], position) for split in SPLITS for position in range(len(splits[split]))
    ]
    with ThreadPoolExecutor(CORES) as pool:
        for done, (job, found) in enumerate(zip(jobs, in_order(_checked_hash, jobs, pool), strict=True), 1):
            progress(done)
            if isinstance(found, DataError):
                damaged.append(str(found))
                continue
            split, examples, position = job
            known, key = first.setdefault(found, (split, examples.keys[position]))
            if known != split:
                doubled.append(f"{examples.keys[position]} in {split} is {key} in {known}")
    if damaged:
        text = first_of(damaged, SHOWN, "\n  ")
        raise DataError(f"{len(damaged)} of {len(jobs)} images cannot be read; repair or remove them:\n  {text}")
    if not doubled:
        return []
    named = "1 image is" if len(doubled) == 1 else f"{len(doubled)} images are"
    return [f"{named} byte for byte in two splits: {first_of(doubled, SHOWN)}"]


def _checked_hash(job: tuple[SplitName, Examples, int]) -> str:
    """Return the SHA-256 of an encoded image that can be decoded."""
    _, examples, position = job
    picture = examples.picture(position)
    data = read_bytes(picture) if isinstance(picture, Path) else bytes(picture)
    verify_encoded(picture if isinstance(picture, Path) else examples.keys[position], data)
    return hashlib.sha256(data).hexdigest()
