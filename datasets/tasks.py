"""Which tasks there are, and how the names that people type become tasks."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .fgvc import FGVC
from .folder import folder_task
from .task import PROCEDURAL_SUITES, SUITES, DataError, Task, nearest
from .toy import TOY
from .vtab1k import VTAB1K

_ROWS = {"vtab1k": VTAB1K, "fgvc": FGVC, "toy": TOY}


def suite_tasks(suite: str) -> dict[str, Task]:
    """The rows of a suite by name, in the order papers print them.

    Raises:
        ValueError: there is no such suite.
    """
    if suite not in _ROWS:
        raise ValueError(f"no suite {suite!r}; there are {', '.join(SUITES)}" + nearest(suite, SUITES))
    return _ROWS[suite]


def table() -> dict[tuple[str, str], Task]:
    """Every row of every suite, keyed (suite, name)."""
    return {(suite, name): task for suite in SUITES for name, task in suite_tasks(suite).items()}


def find(
    names: Sequence[str], suite: str | None, data: Path | None, refused: dict[str, str] | None = None
) -> list[Task]:
    """The tasks that `names` mean, located, in the order given and each once.

    A name is a task or a group of `suite`, `all`, or the path of a folder (see `folder.folder_task`).
    Tasks of a suite on disk are looked for in `data`/<name>; whether the files are there is found out
    when the task is loaded or checked.

    refused: gets the paths of folders that are no tasks, and why; where there is none, they are raised.

    Raises:
        ValueError: a name is unknown, or a suite or the data folder is needed and was not given.
        DataError: folders given by path are no tasks, or two folders claim the same suite and name.
    """
    found: dict[tuple[str, str], Task] = {}
    wrong: dict[str, str] = {}
    for name in names:
        try:
            meant = _meant(name, suite, data)
        except DataError as error:
            wrong[name] = str(error)
            continue
        for task in meant:
            known = found.setdefault((task.suite, task.name), task)
            if known.folder != task.folder:
                raise DataError(
                    f"{known.folder} and {task.folder} are both called {task.label}: "
                    "give one of them another name or suite in its task.toml"
                )
    if refused is not None:
        refused.update(wrong)
    elif wrong:
        raise DataError("\n".join(wrong.values()))
    return list(found.values())


def _meant(name: str, suite: str | None, data: Path | None) -> list[Task]:
    """The tasks that one name means."""
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
    if name == "all":
        raise ValueError(f"say which tasks: --suite ({', '.join(SUITES)}), or paths of folders as --tasks")
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
