"""What a task is, which tasks there are, and how the names people type become tasks."""

import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

SPLITS = ("train", "val", "test")
SplitName = Literal["train", "val", "test"]
"""`train` and `val` are VTAB-1k's train800 and val200; their concatenation, in this order, is the 1000."""

SUITES = ("vtab1k", "fgvc", "toy")
"""The suites of the project itself; a folder of one's own can claim none of these names."""
PROCEDURAL_SUITES = ("toy",)
"""Suites whose images are made at the time of use, so that they lie nowhere."""


class DataError(Exception):
    """Data that cannot be used; the message says what, where, and what to do."""


@dataclass(frozen=True)
class Split:
    """The examples of one split, in order."""

    labels: np.ndarray
    """[n] int64"""
    images: Sequence[Path | np.ndarray]
    """n encoded image files, or n uint8 arrays [height, width, 3]."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A row of the task table."""

    suite: str
    """`vtab1k`, `fgvc`, `toy`, or what a folder's `task.toml` says (`own` otherwise)."""
    name: str
    group: str
    """`natural`, `specialized` or `structured` in VTAB; the suite's name where there are no groups."""
    classes: int
    sizes: dict[SplitName, tuple[int, ...]]
    """Accepted number of images per split; empty for a folder of one's own."""
    load: Callable[["Task"], dict[SplitName, Split]]
    """Reads `folder`, or makes the images (procedural tasks).  Raises `DataError`."""
    source: str
    licence: str
    citation: str
    folder: Path | None = None
    """Where this task lies on this machine; None for procedural tasks and for rows not yet located."""
    class_names: tuple[str, ...] = ()
    provenance: str = "own"
    """`lossless`, `jpeg75` or `own`; for vtab1k it depends on the files and is known once they are read."""
    version: int = 1
    """Raised when the same name means other data or labels."""

    @property
    def label(self) -> str:
        """What messages call it: `vtab1k/cifar`."""
        return f"{self.suite}/{self.name}"


def suite_tasks(suite: str) -> dict[str, Task]:
    """The rows of a suite by name, in the order papers print them.

    Raises:
        ValueError: there is no such suite.
    """
    # Imported here because the rows are made of the types above.
    if suite == "vtab1k":
        from .vtab1k import VTAB1K as tasks
    elif suite == "fgvc":
        from .fgvc import FGVC as tasks
    elif suite == "toy":
        from .toy import TOY as tasks
    else:
        raise ValueError(f"no suite {suite!r}; there are {', '.join(SUITES)}" + nearest(suite, SUITES))
    return tasks


def table() -> dict[tuple[str, str], Task]:
    """Every row of every suite, keyed (suite, name)."""
    return {(suite, name): task for suite in SUITES for name, task in suite_tasks(suite).items()}


def find(names: Sequence[str], suite: str | None, data: Path | None) -> list[Task]:
    """The tasks that `names` mean, located, in the order given and each once.

    A name is a task or a group of `suite`, `all`, or the path of a folder (see `folder.folder_task`).
    Tasks of a suite on disk are looked for in `data`/<name>; whether the files are there is found out
    when the task is loaded or checked.

    Raises:
        ValueError: a name is unknown, or a suite or the data folder is needed and was not given.
        DataError: a folder given by path is not a task, or two folders claim the same suite and name.
    """
    found: dict[tuple[str, str], Task] = {}
    for name in names:
        for task in _meant(name, suite, data):
            known = found.setdefault((task.suite, task.name), task)
            if known.folder != task.folder:
                raise DataError(
                    f"{known.folder} and {task.folder} are both called {task.label}: "
                    "give one of them another name or suite in its task.toml"
                )
    return list(found.values())


def _meant(name: str, suite: str | None, data: Path | None) -> list[Task]:
    """The tasks that one name means."""
    from .folder import folder_task

    if "/" in name or os.sep in name:
        return [folder_task(Path(name))]
    tasks = suite_tasks(suite) if suite else {}
    if name == "all" and suite:
        return [_located(task, data) for task in tasks.values()]
    chosen = [task for task in tasks.values() if name in (task.name, task.group)]
    if chosen:
        return [_located(task, data) for task in chosen]
    homes = [home for home in SUITES if name in suite_tasks(home)]
    if Path(name).is_dir() and not homes:
        return [folder_task(Path(name))]
    if homes:
        raise ValueError(
            f"{name!r} is a task of suite {homes[0]}, not of {suite or 'no suite'}: say `--suite {homes[0]}`, "
            f"or `./{name}` if you mean the folder"
        )
    if not suite:
        raise ValueError(f"{name!r} is neither a folder nor a task: say `--suite` ({', '.join(SUITES)}) or a path")
    groups = list(dict.fromkeys(task.group for task in tasks.values()))
    raise ValueError(
        f"suite {suite} has no task or group {name!r}{nearest(name, [*tasks, *groups, 'all'])}; "
        f"tasks: {', '.join(tasks)}; groups: {', '.join([*groups, 'all'])}; or the path of a folder"
    )


def _located(task: Task, data: Path | None) -> Task:
    if task.suite in PROCEDURAL_SUITES:
        return task
    if data is None:
        raise ValueError(
            f"{task.label} is read from disk: say `--data FOLDER`, the one that holds {task.name}/ (see docs/data.md)"
        )
    return replace(task, folder=data.expanduser().resolve() / task.name)


def nearest(name: str, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(choices), n=2)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
