"""Bring your own data: any folder in the archive's layout is a task."""

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

from .archive import HELP, LISTS, PROVENANCES, class_names, load, read_lists, read_text
from .task import SUITES, DataError, Task, nearest

FACTS = ("suite", "name", "group", "provenance", "version", "licence", "source", "citation")
"""What `task.toml` may say."""


def folder_task(path: Path) -> Task:
    """Any folder in the archive's layout as a task; it never enters a suite of the project.

    Optional `task.toml`: suite (default `own`), name (default: the folder's), group (default `own`),
    provenance, version, licence, source, citation.  The number of classes is that of `classes.txt`, else the
    highest label + 1.

    Raises:
        DataError: no such folder, wrong facts, fewer than two classes; unreadable lists when they are needed.
    """
    folder = path.expanduser().resolve()
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; {HELP}")
    facts = _facts(folder)
    names = class_names(folder)
    classes = len(names) or _highest_label(folder) + 1
    if classes < 2:
        raise DataError(f"{folder} has {classes} class; a task needs at least 2")
    return Task(
        suite=facts.get("suite", "own"),
        name=facts.get("name", folder.name),
        group=facts.get("group", "own"),
        classes=classes,
        sizes={},
        load=load,
        source=facts.get("source", "own"),
        licence=facts.get("licence", "not stated"),
        citation=facts.get("citation", "not stated"),
        folder=folder,
        class_names=names,
        provenance=facts.get("provenance", "own"),
        version=facts.get("version", 1),
    )


def _highest_label(folder: Path) -> int:
    listings, problems = read_lists(folder, None)
    if problems and (below := _tasks_below(folder)):
        raise DataError(f"{folder} is no task, but {', '.join(below)} in it look like tasks: say {folder}/*")
    if problems:
        raise DataError("; ".join(problem.text for problem in problems) + f"; {HELP}")
    return max(max(listing.labels) for listing in listings.values())


def _tasks_below(folder: Path) -> list[str]:
    """Names of the folders in `folder` that have lists, where it has none itself."""
    lists = list(chain.from_iterable(LISTS.values()))
    homes = sorted({path.parent.name for name in lists for path in folder.glob(f"*/{name}")})
    return [] if any((folder / name).exists() for name in lists) else homes


def _facts(folder: Path) -> dict[str, Any]:
    """What `task.toml` says, checked; empty when there is none."""
    path = folder / "task.toml"
    try:
        facts = tomllib.loads(read_text(path)) if path.exists() else {}
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not valid TOML: {error}") from None
    for key, value in facts.items():
        if key not in FACTS:
            raise DataError(f"{path}: unknown key {key!r}{nearest(key, FACTS)}; known are {', '.join(FACTS)}")
        kind = int if key == "version" else str
        if type(value) is not kind or value in ("", 0):
            wanted = "a whole number, at least 1" if kind is int else "a text that is not empty"
            raise DataError(f"{path}: {key} must be {wanted}, not {value!r}")
    if facts.get("suite") in SUITES:
        raise DataError(f"{path}: the suite {facts['suite']!r} is the project's own; choose another name")
    if facts.get("provenance", "own") not in PROVENANCES:
        raise DataError(f"{path}: provenance {facts['provenance']!r} is unknown; known are {', '.join(PROVENANCES)}")
    for key, value in {"name": folder.name, **facts}.items():
        if key in ("suite", "name", "group") and not re.fullmatch(r"\w[\w.+-]*", value):
            must = "must consist of letters, digits, and `_ . + -`"
            if key not in facts:
                raise DataError(
                    f"the folder's name {value!r} {must} to be the task's: create {path} with name = \"...\""
                )
            raise DataError(f"{path}: {key} {value!r} {must}; write another there")
    return facts
