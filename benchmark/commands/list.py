"""The command `list`: print methods, tasks, backbones or recipes."""

import argparse
import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ...datasets.task import nearest
from ...datasets.tasks import table
from ..recipes import RECIPES
from ..reporting.text_table import text_table

Row = dict[str, Any]

WIDTH = 100
"""Width of a terminal in characters (ours)."""
WIDE = ("hub", "mean", "std")
"""Columns of backbones that the text shows of named ones only."""
RECIPES_PER_TABLE = 5
"""Number of recipe columns that fit into `WIDTH`."""


def show(options: argparse.Namespace) -> int:
    """Run `vtab-peft list`; methods and backbones of plug-in files are included.

    Raises:
        ValueError: a plug-in cannot be loaded or listed, or --plugin is used with another list.
    """
    what, style, plugins = options.what, options.style, options.plugin
    if plugins and what not in ("methods", "backbones"):
        raise ValueError(f"--plugin adds methods and backbones; it has no effect on {what}")
    if plugins:
        from ...methods.plugin import load_plugin

        for path in plugins:
            load_plugin(path)
    try:
        rows = _plugged_methods() if plugins and what == "methods" else LISTS[what]()
        rows = _named(rows, options.names, what) if options.names else rows
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    except Exception as error:
        if not plugins:
            raise
        advice = "`vtab-peft check-method FILE` says what is wrong with a plug-in"
        raise ValueError(f"the {what} cannot be listed: {type(error).__name__}: {error}; {advice}") from error
    if style == "json":
        print(json.dumps(rows, indent=1))
    elif what == "methods":
        from . import method_docs

        if options.names:
            print(method_docs.sections(rows))
            return 0
        print(method_docs.page(rows).rstrip("\n") if style == "markdown" else method_docs.table(rows))
    elif style == "text" and what == "recipes":
        print(_recipe_tables(rows))
    else:
        left_out = WIDE if what == "backbones" and style == "text" and not options.names else ()
        shown = [{key: _text(value) for key, value in row.items() if key not in left_out} for row in rows]
        align = "".join("r" if any(type(row[key]) is int for row in rows) else "l" for key in shown[0])
        table_style = "markdown" if style == "markdown" else "simple"
        print(text_table([*shown[0]], [[*row.values()] for row in shown], align, table_style))
    return 0


def _named(rows: list[Row], names: Sequence[str], what: str) -> list[Row]:
    """Return the rows with these names or titles.

    Raises:
        KeyError: there is no such row; the message names the nearest.
    """
    known = {str(row[key]).casefold(): row for key in ("title", "name") for row in rows if key in row}
    found = []
    for name in names:
        if name.casefold() not in known:
            raise KeyError(f"there is no {what.removesuffix('s')} {name!r}{nearest(name.casefold(), known)}")
        found.append(known[name.casefold()])
    return found


def _recipe_tables(rows: list[Row]) -> str:
    """Return tables with a column per recipe, then the source of each recipe."""
    blocks = [rows[start : start + RECIPES_PER_TABLE] for start in range(0, len(rows), RECIPES_PER_TABLE)]
    sources = [textwrap.fill(f"{row['name']}: {row['source']}", WIDTH, break_on_hyphens=False) for row in rows]
    return "\n\n".join([*map(_recipe_table, blocks), *sources])


def _recipe_table(rows: list[Row]) -> str:
    fields = [field for field in rows[0] if field not in ("name", "source", "tasks", "search")]
    lines = [[field, *(_recipe_value(row, field) for row in rows)] for field in fields]
    return text_table(["", *(row["name"] for row in rows)], lines, "l" * (1 + len(rows)))


def _recipe_value(row: Row, field: str) -> Any:
    """Return the value of a field, "per task", or the default and how many values `tune` tries."""
    if any(field in own for own in row["tasks"].values()):
        return "per task"
    values = row["search"].get(field, ())
    return f"{row[field]:g}, {len(values)} to try" if values else _text(row[field])


def _methods() -> list[Row]:
    from .method_cache import cached_rows

    return cached_rows()


def _plugged_methods() -> list[Row]:
    from .method_rows import methods

    return methods()


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
    from . import backbone_facts

    return backbone_facts.backbones()


def _recipes() -> list[Row]:
    return [asdict(recipe) for recipe in RECIPES.values()]


LISTS: dict[str, Callable[[], list[Row]]] = {
    "methods": _methods,
    "tasks": _tasks,
    "backbones": _backbones,
    "recipes": _recipes,
}


def _text(value: Any) -> Any:
    """Return a value as text: yes or no, an empty string for None, names or numbers joined."""
    if isinstance(value, dict):
        return ", ".join(value)
    if isinstance(value, list | tuple):
        return "/".join(_text(number) if isinstance(number, int) else f"{number:g}" for number in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else value
