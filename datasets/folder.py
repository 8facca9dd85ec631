"""Custom tasks: any folder in the archive's layout."""

import os
import re
import reprlib
from itertools import chain
from pathlib import Path
from typing import Any

from .archive import HELP, LISTS, PROVENANCES, class_names, load, read_lists
from .labelled import from_class_folders
from .reading import expanded, naming, read_text
from .schema import from_toml
from .task import SUITES, DataError, Task, nearest

FACTS = ("suite", "name", "group", "provenance", "version", "licence", "source", "citation")
"""Keys of `task.toml`."""
LARGEST_FACTS = 1 << 20
"""Bytes of the largest `task.toml` that is read (our choice)."""
LARGEST_CLASSES = 2**16
"""Most classes of a task: predictions are stored as 16-bit numbers."""
LARGEST_VERSION = 2**31
"""First version that is too large (our choice)."""


def folder_task(path: Path) -> Task:
    """Return a folder in the archive's layout as a task outside the official suites.

    An optional `task.toml` states suite (default `own`), name (default: the folder's), group (default `own`),
    provenance, version, licence, source and citation.  The number of classes is that of `classes.txt`, else the highest
    label + 1.

    Raises:
        DataError: the folder is missing, a fact is wrong, there are fewer than two classes, or required lists cannot be
            read.
    """
    folder = expanded(path).resolve()
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; {HELP}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder}: the folder cannot be read; change its permissions")
    names = class_names(folder)
    classes = len(names) or _highest_label(folder) + 1  # first: it says if the folder has another layout
    facts = _facts(folder)
    if classes > LARGEST_CLASSES:
        raise DataError(f"{folder} has {classes:,} classes; predictions are stored for at most {LARGEST_CLASSES:,}")
    if classes < 2:
        raise DataError(f"{folder} has {classes} class; a task needs at least 2")
    defaults = {
        **{"suite": "own", "name": folder.name, "group": "own", "source": "own"},
        **{"licence": "not stated", "citation": "not stated"},
    }
    return Task(**{**defaults, **facts}, classes=classes, sizes={}, load=load, folder=folder, class_names=names)


def _highest_label(folder: Path) -> int:
    listings, problems = read_lists(folder, None)
    if problems and (below := _tasks_below(folder)):
        raise DataError(f"{folder} is not a task, but contains tasks ({', '.join(below)}): use {folder}/*")
    if not listings and _has_class_folders(folder):
        raise DataError(f"{folder} has class folders, but no lists of the splits: use imagefolder:{folder}")
    if problems:
        raise DataError("; ".join(problem.text for problem in problems) + f"; {HELP}")
    return max(max(listing.labels) for listing in listings.values())


def _has_class_folders(folder: Path) -> bool:
    try:
        return bool(from_class_folders(folder))
    except DataError:
        return False


def _tasks_below(folder: Path) -> list[str]:
    """Return the names of subfolders that have lists, if `folder` has none itself."""
    lists = list(chain.from_iterable(LISTS.values()))
    tasks = sorted({path.parent.name for name in lists for path in folder.glob(f"*/{name}")})
    return [] if any((folder / name).exists() for name in lists) else tasks


def _facts(folder: Path) -> dict[str, Any]:
    """Return the validated content of `task.toml`, or an empty dict without this file."""
    path = folder / "task.toml"
    with naming(path):
        facts = from_toml(read_text(path, LARGEST_FACTS), dict[str, Any]) if path.exists() else {}
    for key, value in facts.items():
        if key not in FACTS:
            raise DataError(f"{path}: unknown key {key!r}{nearest(key, FACTS)}; known are {', '.join(FACTS)}")
        expected = int if key == "version" else str
        if type(value) is not expected or value == "" or (type(value) is int and not 1 <= value < LARGEST_VERSION):
            wanted = f"a whole number from 1 to {LARGEST_VERSION - 1:,}" if expected is int else "a non-empty text"
            raise DataError(f"{path}: {key} must be {wanted}, not {reprlib.repr(value)}")
    if facts.get("suite") in SUITES:
        raise DataError(f"{path}: the suite name {facts['suite']!r} is reserved; choose another")
    if facts.get("provenance", "own") not in PROVENANCES:
        raise DataError(f"{path}: provenance {facts['provenance']!r} is unknown; known are {', '.join(PROVENANCES)}")
    for key in ("suite", "name", "group"):
        value = facts.get(key, folder.name if key == "name" else "own")
        if not re.fullmatch(r"\w[\w.+-]*", value):
            advice = "choose another" if key in facts else f"set `name` in {path}"
            raise DataError(f"{path}: {key} {value!r} may only have letters, digits and `_ . + -`; {advice}")
    return facts
