"""The verb `list`: what there is."""

import argparse
import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ...datasets.tasks import table
from ..recipes import RECIPES

Row = dict[str, Any]

WIDTH = 100
"""Of a terminal, in characters."""
RECIPES_ABREAST = 5
"""Recipes that fit into it."""


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
        from . import method_docs as catalogue

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
    from ...methods.plugin import load_plugin

    for path in plugins:
        load_plugin(path)


def _side_by_side(rows: list[Row]) -> str:
    """One column a recipe: they are there to be compared; as many tables as the width of a terminal makes of it."""
    blocks = [rows[start : start + RECIPES_ABREAST] for start in range(0, len(rows), RECIPES_ABREAST)]
    sources = [textwrap.fill(f"{row['name']}: {row['source']}", WIDTH, break_on_hyphens=False) for row in rows]
    return "\n\n".join([*map(_recipe_columns, blocks), *sources])


def _recipe_columns(rows: list[Row]) -> str:
    fields = [field for field in rows[0] if field not in ("name", "source", "tasks", "search")]
    lines = [[field, *(_recipe_cell(row, field) for row in rows)] for field in fields]
    return tabulate(lines, ["", *(row["name"] for row in rows)], tablefmt="simple", disable_numparse=True)


def _recipe_cell(row: Row, field: str) -> Any:
    """A number, what stands for the numbers of a table, or the first of those that `tune` searches."""
    if any(field in own for own in row["tasks"].values()):
        return "per task"
    values = row["search"].get(field, ())
    return f"{row[field]:g}, {len(values)} to try" if values else _cell(row[field])


def _methods() -> list[Row]:
    from . import method_docs as catalogue

    return catalogue.methods()


def _tasks() -> list[Row]:
    return [
        {
            "suite": suite,
            "name": name,
            "group": task.group,
            "classes": task.classes,
            **{split: sizes[0] if len(sizes) == 1 else list(sizes) for split, sizes in task.sizes.items()},
            "licence": task.licence,
        }
        for (suite, name), task in table().items()
    ]


def _backbones() -> list[Row]:
    from ..engine.backbone import facts, names

    known = {name: facts(name) for name in names()}
    return [{"name": name, "image_size": f.image_size, "mean": f.mean, "std": f.std} for name, f in known.items()]


def _recipes() -> list[Row]:
    return [asdict(recipe) for recipe in RECIPES.values()]


LISTS: dict[str, Callable[[], list[Row]]] = {
    "methods": _methods,
    "tasks": _tasks,
    "backbones": _backbones,
    "recipes": _recipes,
}


def _cell(value: Any) -> Any:
    """For people: yes and no, nothing for None, of a table the names, several numbers with strokes between."""
    if isinstance(value, dict):
        return ", ".join(value)
    if isinstance(value, list | tuple):
        return "/".join(f"{number:g}" for number in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else value
