"""The table of all tasks, and how names on the command line become tasks."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .archive import origin
from .folder import folder_task
from .importing import IMAGE_FOLDER, image_folder_task
from .official import FGVC, VTAB1K
from .raw.atomic_folder import recover
from .reading import expanded
from .task import PROCEDURAL_SUITES, SUITES, DataError, Task, nearest
from .toy import TOY

_ROWS = {"vtab1k": VTAB1K, "fgvc": FGVC, "toy": TOY}


def suite_tasks(suite: str) -> dict[str, Task]:
    """Return the rows of a suite by name, in the order in which papers print them.

    Raises:
        ValueError: the suite is unknown.
    """
    if suite not in _ROWS:
        raise ValueError(f"unknown suite {suite!r}; known are {', '.join(SUITES)}" + nearest(suite, SUITES))
    return _ROWS[suite]


def table() -> dict[tuple[str, str], Task]:
    """Return every row of every suite by (suite, name)."""
    return {(suite, name): task for suite in SUITES for name, task in suite_tasks(suite).items()}


def find(names: Sequence[str], suite: str | None, data: Path | None) -> list[Task]:
    """Return the tasks that `names` mean with their folders, in the order given and each once.

    A name is a task or a group of `suite`, `all`, the path of a folder (see `folder.folder_task`), or `imagefolder:`
    with the path of a folder of class folders (see `importing.image_folder_task`).  Tasks of a suite on disk get the
    folder `data`/<name>; loading or checking a task finds out if its files exist.

    Raises:
        ValueError: a name is unknown, or a required suite or data folder is missing.
        DataError: a folder is not a task, or two folders have the same suite and name.
    """
    tasks, refused = find_valid(names, suite, data)
    if refused:
        raise DataError("\n".join(refused.values()))
    return tasks


def find_valid(names: Sequence[str], suite: str | None, data: Path | None) -> tuple[list[Task], dict[str, str]]:
    """Return the tasks like `find`, and the paths that are not tasks with the reasons instead of raising."""
    found: dict[tuple[str, str], Task] = {}
    refused: dict[str, str] = {}
    for name in names:
        try:
            meant = _resolve(name, suite, data)
        except DataError as error:
            refused[name] = str(error)
            continue
        for task in meant:
            known = found.setdefault((task.suite, task.name), task)
            if known.folder != task.folder:
                places = [folder for folder in (known.folder, task.folder) if folder]
                advice = "give one of them another name or suite in its task.toml"
                if all(origin(folder) != folder for folder in places):
                    advice = "rename one of the folders, or import one under another name with `vtab-peft data import`"
                shown = " and ".join(str(origin(folder)) for folder in places)
                raise DataError(f"{shown} are both called {task.label}: {advice}")
    return list(found.values()), refused


def _resolve(name: str, suite: str | None, data: Path | None) -> list[Task]:
    """Return the tasks that one name means."""
    if name == IMAGE_FOLDER:
        raise DataError(f"{IMAGE_FOLDER} needs the path of a folder, such as {IMAGE_FOLDER}path/to/folder")
    if name.startswith(IMAGE_FOLDER):
        return [image_folder_task(Path(name.removeprefix(IMAGE_FOLDER)))]
    if "/" in name or os.sep in name:
        return [folder_task(Path(name))]
    tasks = suite_tasks(suite) if suite else {}
    chosen = [task for task in tasks.values() if name in (task.name, task.group, "all")]
    if chosen:
        return [_located(task, data) for task in chosen]
    homes = [home for home in SUITES if name in suite_tasks(home)]
    if Path(name).is_dir() and not homes:
        return [folder_task(Path(name))]
    if homes:
        raise ValueError(
            f"{name!r} is a task of suite {homes[0]}, not of {suite or 'no suite'}: use `--suite {homes[0]}`, "
            f"or `./{name}` for the folder"
        )
    if name == "all":
        raise ValueError(f"no tasks given: use --suite ({', '.join(SUITES)}), or paths of folders as --tasks")
    if not suite:
        raise ValueError(f"{name!r} is neither a folder nor a task: use `--suite` ({', '.join(SUITES)}) or a path")
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
            f"{task.label} needs `--data FOLDER`, the folder that contains {task.name}/ (see docs/data.md)"
        )
    folder = expanded(data).resolve() / task.name
    recover(folder)
    return replace(task, folder=folder)
