"""Read tasks in the layout of the shared `vtab-1k` archive, also custom tasks in the same layout.

<folder>/images/...            PNG, JPEG or anything else Pillow reads
<folder>/train800.txt          lines `images/x.jpg LABEL`, labels from 0; also `train.txt`
<folder>/val200.txt            also `val.txt`
<folder>/test.txt
<folder>/train800val200.txt    optional, both lists together; also `trainval.txt`
<folder>/classes.txt           optional, one class name a line
<folder>/task.toml             optional, for custom tasks: see folder.py
<folder>/manifest.json         optional, written by the builder of the folder; its "provenance" is read
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from .reading import read_json, read_text
from .task import SPLITS, SUITES, DataError, Split, SplitName, Task

LISTS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train800.txt", "train.txt"),
    "val": ("val200.txt", "val.txt"),
    "test": ("test.txt",),
}
UNION = ("train800val200.txt", "trainval.txt")
MANIFEST = "manifest.json"
PROVENANCES = ("lossless", "jpeg75", "own")
IMAGE_FOLDERS = "image_folders"
"""Folder of the cache with the lists of class folders, and links to them."""
SHOWN = 10
"""Wrong lines of a list that a message shows (our choice)."""
HELP = "docs/data.md explains how to get the data and how a folder must look"


@dataclass(frozen=True)
class Listing:
    """Content of a list file: image files relative to the folder, and their labels."""

    files: list[str]
    labels: list[int]


class Problem(NamedTuple):
    """A reason why a folder cannot be used."""

    state: Literal["missing", "partial", "wrong"]
    """Nothing is there, something is missing, or something is wrong."""
    text: str


def load(task: Task) -> dict[SplitName, Split]:
    """Return the splits of a task in `task.folder`.

    Raises:
        DataError: lists, labels, counts or files are wrong; the message names all problems.
    """
    return splits_of(task, read(task))


def read(task: Task) -> dict[SplitName, Listing]:
    """Return the validated lists of a task; raise `DataError` like `load`."""
    listings, problems = examine(task)
    if problems:
        lines = "".join(f"\n  {problem.text}" for problem in problems)
        raise DataError(f"{task.label} cannot be used:{lines}\n  ({HELP})")
    return listings


def splits_of(task: Task, listings: dict[SplitName, Listing]) -> dict[SplitName, Split]:
    """Return the splits of a task, with absolute image paths."""
    folder = task.folder or Path()
    return {
        split: Split(np.array(listing.labels, np.int64), [folder / file for file in listing.files])
        for split, listing in listings.items()
    }


def examine(task: Task) -> tuple[dict[SplitName, Listing], list[Problem]]:
    """Return the lists that can be read, and all problems of the folder."""
    if task.folder is None:
        return {}, [Problem("missing", "no folder is known for this task")]
    if not task.folder.is_dir():
        return {}, [Problem("missing", f"there is no folder {task.folder}")]
    if not os.access(task.folder, os.R_OK | os.X_OK):
        return {}, [Problem("wrong", f"{task.folder}: the folder cannot be read; change its permissions")]
    listings, problems = read_lists(task.folder, task.classes)
    if not listings and all(problem.state == "partial" for problem in problems):
        return {}, [Problem("missing", f"{task.folder} has no lists in the archive's layout")]
    problems += _count_problems(task, listings)
    problems += _duplicates(task.folder, listings)
    problems += _union_problems(task.folder, listings)
    problems += [problem for listing in listings.values() for problem in _missing_images(task.folder, listing)]
    try:
        names = class_names(task.folder)
        if names and len(names) != task.classes:
            text = f"{task.folder / 'classes.txt'} names {len(names)} classes, {task.label} has {task.classes}"
            problems.append(Problem("wrong", text))
    except DataError as error:
        problems.append(Problem("wrong", str(error)))
    return listings, problems


def read_list(path: Path, classes: int | None = None) -> Listing:
    """Parse lines `images/x.jpg LABEL`; blank lines are skipped.

    Raises:
        DataError: the list is empty, or lines have another form, a file outside the folder, or a label outside
            0 .. `classes` - 1.  The message names file and line of the first ten.
    """
    listing, wrong = Listing([], []), []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            file, label = _parse(line, path.parent, classes)
        except DataError as error:
            wrong.append(f"{path}:{number}: {error}")
        else:
            listing.files.append(file)
            listing.labels.append(label)
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more wrong lines" if len(wrong) > SHOWN else ""
        raise DataError("; ".join(wrong[:SHOWN]) + more)
    if not listing.files:
        raise DataError(f"{path} is empty: it must list at least one image")
    return listing


def _parse(line: str, folder: Path, classes: int | None) -> tuple[str, int]:
    """Return file and label of a line; raise `DataError` without file and line number."""
    parts = line.rsplit(maxsplit=1)
    if len(parts) != 2 or "\0" in line:
        raise DataError(f"expected `images/x.jpg LABEL`, found {line.strip()[:80]!r}")
    file, label = parts[0].strip(), parts[1]
    if not re.fullmatch(r"-?[0-9]{1,9}", label):
        raise DataError(f"the label {label[:80]!r} is not an integer")
    if int(label) < 0 or (classes is not None and int(label) >= classes):
        allowed = f"0 to {classes - 1}" if classes else "0 and above"
        raise DataError(f"label {label} is out of range; allowed are {allowed}")
    steps = [step for step in file.split("/") if step not in ("", ".")]
    if file.startswith("/") or ".." in steps:
        raise DataError(f"{file!r} is outside the folder; name images relative to {folder}")
    return "/".join(steps), int(label)


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the lines of `classes.txt`, or an empty tuple without this file."""
    path = folder / "classes.txt"
    return tuple(line.strip() for line in read_text(path).rstrip().split("\n")) if path.exists() else ()


def provenance(task: Task, files: Iterable[str]) -> str:
    """Return how the pixels were derived from the original files: `lossless`, `jpeg75` or `own`.

    For official tasks, `manifest.json` states it.  Without a manifest, vtab1k images count as lossless if all are PNG,
    and as the shared archive's JPEGs of quality 75 otherwise.
    """
    if task.folder is None or task.suite not in SUITES:
        return task.provenance
    if (task.folder / MANIFEST).exists():
        stated = manifest(task.folder).get("provenance")
        if stated not in PROVENANCES:
            raise DataError(
                f"{task.folder / MANIFEST}: provenance {stated!r} is unknown; known are {', '.join(PROVENANCES)}"
            )
        return stated
    if task.suite != "vtab1k":
        return task.provenance
    return "lossless" if all(file.lower().endswith(".png") for file in files) else "jpeg75"


def origin(folder: Path) -> Path:
    """Return the class folders for which the cache holds the lists in `folder`; any other folder is its own origin."""
    link = folder / "images"
    return link.readlink() if folder.parent.name == IMAGE_FOLDERS and link.is_symlink() else folder


def with_real_paths(text: str, folder: Path | None) -> str:
    """Return a message with files behind the link `images` of a task folder where the user has put them."""
    linked = (folder or Path()) / "images"
    return text.replace(str(linked), str(linked.resolve()))


def manifest(folder: Path) -> dict[str, Any]:
    """Return what the builder of a folder states in `manifest.json`; empty without this file.

    Raises:
        DataError: the file is not a JSON object.
    """
    path = folder / MANIFEST
    return read_json(path, dict[str, Any]) if path.exists() else {}


def read_lists(folder: Path, classes: int | None) -> tuple[dict[SplitName, Listing], list[Problem]]:
    """Read the split lists of a folder; returns the lists and their problems."""
    listings: dict[SplitName, Listing] = {}
    problems: list[Problem] = []
    for split in SPLITS:
        present = [name for name in LISTS[split] if (folder / name).exists()]
        if len(present) == 1:
            try:
                listings[split] = read_list(folder / present[0], classes)
            except DataError as error:
                problems.append(Problem("wrong", str(error)))
        elif present:
            problems.append(Problem("wrong", f"{folder} has both {' and '.join(present)}; remove one of them"))
        else:
            problems.append(Problem("partial", f"{folder} has no {' or '.join(LISTS[split])}"))
    return listings, problems


def _count_problems(task: Task, listings: dict[SplitName, Listing]) -> list[Problem]:
    problems = []
    for split, listing in listings.items():
        accepted, found = task.sizes.get(split), len(listing.files)
        if accepted and found not in accepted:
            expected = " or ".join(f"{size:,}" for size in accepted)
            text = f"{split} lists {found:,} images, {task.label} has {expected}; give a custom task by its path"
            problems.append(Problem("partial" if found < min(accepted) else "wrong", text))
    return problems


def _duplicates(folder: Path, listings: dict[SplitName, Listing]) -> list[Problem]:
    """Report images that are listed twice, in one split or in two."""
    splits: dict[str, list[str]] = {}
    for split, listing in listings.items():
        for file in listing.files:
            splits.setdefault(file, []).append(split)
    twice = {file: where for file, where in splits.items() if len(where) > 1}
    shown = ", ".join(f"{file} ({' and '.join(where)})" for file, where in list(twice.items())[:3])
    return [Problem("wrong", f"{folder} lists {len(twice)} images more than once: {shown}")] if twice else []


def _union_problems(folder: Path, listings: dict[SplitName, Listing]) -> list[Problem]:
    problems = []
    for path in (folder / name for name in UNION if (folder / name).exists()):
        try:
            union = read_list(path)
        except DataError as error:
            problems.append(Problem("wrong", str(error)))
            continue
        parts = [listings[split] for split in ("train", "val") if split in listings]
        pairs = Counter(pair for part in parts for pair in zip(part.files, part.labels, strict=True))
        if len(parts) == 2 and pairs != Counter(zip(union.files, union.labels, strict=True)):
            problems.append(Problem("wrong", f"{path} is not the train and val lists together; correct or remove it"))
    return problems


def _missing_images(folder: Path, listing: Listing) -> list[Problem]:
    """Report listed images and targets of links that do not exist; whole directories are read at once, for speed."""
    present: set[str] = set()
    unreadable: list[Problem] = []
    for parent in sorted({file.rpartition("/")[0] for file in listing.files}):
        try:
            with os.scandir(folder / parent) as entries:
                names = [entry.name for entry in entries if not entry.is_symlink() or Path(entry.path).exists()]
            present.update(f"{parent}/{name}" if parent else name for name in names)
        except FileNotFoundError:
            continue
        except OSError as error:
            unreadable.append(Problem("wrong", f"{folder / parent}: the folder cannot be read ({error.strerror})"))
    missing = [file for file in listing.files if file not in present]
    if not missing or unreadable:
        return unreadable
    shown, place = ", ".join(missing[:3]), origin(folder)
    return [Problem("partial", f"{len(missing)} listed images are not in {place}: {shown}{_hint(folder, missing)}")]


def _hint(folder: Path, missing: list[str]) -> str:
    """Return why the first missing image may be there under another name, or an empty text."""
    file = missing[0]
    if (folder / file).is_symlink():
        link = with_real_paths(str(folder / file), folder)
        return f"; {link} is a link to {(folder / file).readlink()}, which is not there"
    if "\\" in file and (folder / file.replace("\\", "/")).exists():
        return "; write / instead of \\ in the lists"
    wanted = unicodedata.normalize("NFC", file)
    for place, _, names in os.walk(folder):
        for name in names:
            found = (Path(place) / name).relative_to(folder).as_posix()
            if unicodedata.normalize("NFC", found) == wanted:
                form = "NFD" if unicodedata.is_normalized("NFC", file) else "NFC"
                return (
                    f"; {found} looks the same, but its letters with accents are encoded in another form (Unicode "
                    f"{form}): rename the files or write the lists in one form"
                )
            if found.casefold() == file.casefold():
                return f"; there is {found}: capital letters count"
    return ""
