"""The verb `list`: what there is."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..datasets.tasks import table
from .recipes import RECIPES

Row = dict[str, Any]


def show(options: argparse.Namespace) -> int:
    """`vtab-peft list`: print one of `LISTS`; methods with those that plug-in files register.

    Raises:
        ValueError: a plug-in cannot be loaded or listed, or another list was asked for.
    """
    what, style, plugins = options.what, options.style, options.plugin
    if plugins:
        _load(plugins, what)
    try:
        rows = LISTS[what]()
    except Exception as error:
        if not plugins:
            raise
        advice = "`vtab-peft check-method FILE` says what is wrong with a plug-in"
        raise ValueError(f"the methods cannot be listed: {type(error).__name__}: {error}; {advice}") from error
    if style == "json":
        print(json.dumps(rows, indent=1))
    elif what == "methods":
        from . import catalogue

        print(
            catalogue.page(rows) if style == "markdown" else catalogue.table(rows),
            end="" if style == "markdown" else "\n",
        )
    elif style == "text" and what == "recipes":
        print(_side_by_side(rows))
    else:
        shown = [{key: _cell(value) for key, value in row.items()} for row in rows]
        form = "pipe" if style == "markdown" else "simple"
        print(tabulate(shown, headers="keys", tablefmt=form, disable_numparse=True))
    return 0


def _load(plugins: Sequence[Path], what: str) -> None:
    if what != "methods":
        raise ValueError(f"--plugin brings methods, not {what}")
    from ..methods.plugin import load_plugin

    for path in plugins:
        load_plugin(path)


def _side_by_side(rows: list[Row]) -> str:
    """One column a recipe: they are there to be compared."""
    fields = [field for field in rows[0] if field not in ("name", "source")]
    lines = [[field, *(_cell(row[field]) for row in rows)] for field in fields]
    sources = [f"{row['name']}: {row['source']}" for row in rows]
    table = tabulate(lines, ["", *(row["name"] for row in rows)], tablefmt="simple", disable_numparse=True)
    return "\n".join([table, "", *sources])


def _methods() -> list[Row]:
    from . import catalogue

    return catalogue.methods()


def _tasks() -> list[Row]:
    return [
        {
            "suite": suite,
            "name": name,
            "group": task.group,
            "classes": task.classes,
            **{split: "/".join(map(str, sizes)) for split, sizes in task.sizes.items()},
            "licence": task.licence,
        }
        for (suite, name), task in table().items()
    ]


def _backbones() -> list[Row]:
    from .backbone import names

    return [{"name": name} for name in names()]


def _recipes() -> list[Row]:
    return [asdict(recipe) for recipe in RECIPES.values()]


LISTS: dict[str, Callable[[], list[Row]]] = {
    "methods": _methods,
    "tasks": _tasks,
    "backbones": _backbones,
    "recipes": _recipes,
}


def _cell(value: Any) -> Any:
    """For people: yes and no, nothing for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else value
