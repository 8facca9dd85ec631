"""Tasks in the layout of the shared `vtab-1k` archive, and any folder of one's own in the same layout.

<folder>/images/...            PNG, JPEG or anything else Pillow reads
<folder>/train800.txt          lines `images/x.jpg LABEL`, labels from 0; also `train.txt`
<folder>/val200.txt            also `val.txt`
<folder>/test.txt
<folder>/train800val200.txt    optional, the two together; also `trainval.txt`
<folder>/classes.txt           optional, one class name a line
<folder>/task.toml             optional, for folders of one's own: see folder.py
<folder>/manifest.json         optional, written by whoever built the folder; its "provenance" is read
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from .task import SPLITS, SUITES, DataError, Split, SplitName, Task

LISTS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train800.txt", "train.txt"),
    "val": ("val200.txt", "val.txt"),
    "test": ("test.txt",),
}
UNION = ("train800val200.txt", "trainval.txt")
PROVENANCES = ("lossless", "jpeg75", "own")
SHOWN = 10
"""Wrong lines of a list that are named (ours)."""
HELP = "docs/data.md says how to get the data and how a folder must look"


@dataclass(frozen=True)
class Listing:
    """A list file: image files relative to the folder, and their labels."""

    files: list[str]
    labels: list[int]


class Problem(NamedTuple):
    """Why a folder cannot be used: nothing is there, something is missing, or what is there is not right."""

    state: Literal["missing", "partial", "wrong"]
    text: str


def load(task: Task) -> dict[SplitName, Split]:
    """The splits of a task that lies in `task.folder`.

    Raises:
        DataError: lists, labels, counts or files are not as they must be; all problems at once.
    """
    return splits_of(task, read(task))


def read(task: Task) -> dict[SplitName, Listing]:
    """The lists of a task, once everything about them has been found right; `DataError` as for `load`."""
    listings, problems = examine(task)
    if problems:
        lines = "".join(f"\n  {problem.text}" for problem in problems)
        raise DataError(f"{task.label} cannot be used:{lines}\n  ({HELP})")
    return listings


def splits_of(task: Task, listings: dict[SplitName, Listing]) -> dict[SplitName, Split]:
    folder = task.folder or Path()
    return {
        split: Split(np.array(listing.labels, np.int64), [folder / file for file in listing.files])
        for split, listing in listings.items()
    }


def examine(task: Task) -> tuple[dict[SplitName, Listing], list[Problem]]:
    """What the list files say, as far as they can be read, and everything that is wrong with them."""
    if task.folder is None:
        return {}, [Problem("missing", "it has not been located: no folder is known for it")]
    if not task.folder.is_dir():
        return {}, [Problem("missing", f"there is no folder {task.folder}")]
    listings, problems = read_lists(task.folder, task.classes)
    if not listings and all(problem.state == "partial" for problem in problems):
        return {}, [Problem("missing", f"{task.folder} holds none of the lists of the archive's layout")]
    problems += _count_problems(task, listings)
    problems += _repeated(task.folder, listings)
    problems += _union_problems(task.folder, listings)
    problems += [problem for listing in listings.values() for problem in _absent(task.folder, listing)]
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
        DataError: with file and line, of the first ten lines that are not such lines, name a file outside the
            folder, or have a label outside 0 .. `classes` - 1; or there is no line.
    """
    listing, wrong = Listing([], []), []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            file, label = _entry(line, path.parent, classes)
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


def _entry(line: str, folder: Path, classes: int | None) -> tuple[str, int]:
    """File and label of a line; raises `DataError` as `read_list` does, without saying where."""
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
        raise DataError(f"{file!r} leads out of the folder; name images relative to {folder}")
    return "/".join(steps), int(label)


def class_names(folder: Path) -> tuple[str, ...]:
    """The lines of `classes.txt`; empty when there is no such file."""
    path = folder / "classes.txt"
    return tuple(line.strip() for line in read_text(path).rstrip().split("\n")) if path.exists() else ()


def provenance(task: Task, files: Iterable[str]) -> str:
    """What the pixels went through on their way from the original files.

    For tasks of the official suites `manifest.json` says it; without one, vtab1k images that are all PNG are taken
    as lossless, and others as the shared archive's re-encoding at JPEG quality 75.
    """
    if task.folder is None or task.suite not in SUITES:
        return task.provenance
    path = task.folder / "manifest.json"
    if path.exists():
        try:
            stated = json.loads(read_text(path)).get("provenance")
        except (json.JSONDecodeError, AttributeError):
            raise DataError(f"{path} is not a JSON object; build the folder again, or take the file away") from None
        if stated not in PROVENANCES:
            raise DataError(f"{path}: provenance {stated!r} is unknown; known are {', '.join(PROVENANCES)}")
        return stated
    if task.suite != "vtab1k":
        return task.provenance
    png = all(file.lower().endswith(".png") for file in files)
    return "lossless" if png else "jpeg75"


def read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def read_lists(folder: Path, classes: int | None) -> tuple[dict[SplitName, Listing], list[Problem]]:
    listings: dict[SplitName, Listing] = {}
    problems: list[Problem] = []
    for split in SPLITS:
        there = [name for name in LISTS[split] if (folder / name).exists()]
        if len(there) == 1:
            try:
                listings[split] = read_list(folder / there[0], classes)
            except DataError as error:
                problems.append(Problem("wrong", str(error)))
        elif there:
            problems.append(Problem("wrong", f"{folder} has both {' and '.join(there)}; take one of them away"))
        else:
            problems.append(Problem("partial", f"{folder} has no {' or '.join(LISTS[split])}"))
    return listings, problems


def _count_problems(task: Task, listings: dict[SplitName, Listing]) -> list[Problem]:
    problems = []
    for split, listing in listings.items():
        accepted, found = task.sizes.get(split), len(listing.files)
        if accepted and found not in accepted:
            wanted = " or ".join(f"{size:,}" for size in accepted)
            text = f"{split} lists {found:,} images, {task.label} has {wanted}; for other data give the folder by path"
            problems.append(Problem("partial" if found < min(accepted) else "wrong", text))
    return problems


def _repeated(folder: Path, listings: dict[SplitName, Listing]) -> list[Problem]:
    """Images listed twice, in one split or in two."""
    homes: dict[str, list[str]] = {}
    for split, listing in listings.items():
        for file in listing.files:
            homes.setdefault(file, []).append(split)
    twice = {file: splits for file, splits in homes.items() if len(splits) > 1}
    shown = ", ".join(f"{file} ({' and '.join(splits)})" for file, splits in list(twice.items())[:3])
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
            text = f"{path} is not the train list and the val list together; correct it, or take it away"
            problems.append(Problem("wrong", text))
    return problems


def _absent(folder: Path, listing: Listing) -> list[Problem]:
    """Images that are listed and not there.  Whole directories are read: much quicker than a look for each file."""
    there: dict[str, set[str]] = {}
    absent = []
    for file in listing.files:
        parent, _, name = file.rpartition("/")
        if parent not in there:
            there[parent] = _names_in(folder / parent)
        if name not in there[parent]:
            absent.append(file)
    shown = ", ".join(absent[:3])
    return [Problem("partial", f"{len(absent)} listed images are not in {folder}: {shown}")] if absent else []


def _names_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()
