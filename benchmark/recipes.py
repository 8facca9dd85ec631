"""The named training recipes, read from `recipe_tables/recipes.toml`.

Values that differ from task to task are in one CSV file per recipe; its first line names the source.
Only the values are taken from papers, not how they were selected: most authors report the best epoch on the test
images.  Recipes are about training.  Arguments of methods that papers tune per task, such as FacT's scale, are not
included: use `tune`, which selects them on val200.
"""

import csv
import tomllib
from pathlib import Path
from typing import Any

from .spec import Recipe

TABLES = Path(__file__).with_name("recipe_tables")


def task_table(name: str) -> dict[str, dict[str, Any]]:
    """Read `recipe_tables/<name>.csv`: task -> fields of `Recipe` that it replaces."""
    kinds = {"batch_size": int, "augmentation": str}  # all others are floats
    lines = (TABLES / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {
        row["task"]: {field: kinds.get(field, float)(text) for field, text in row.items() if field != "task"}
        for row in rows
    }


def load_recipes() -> dict[str, Recipe]:
    """Read all recipes in the order of the file; an entry replaces fields of its `base`."""
    defaults = {"clip_norm": None, "image_size": None, "tasks": {}, "search": {}}
    resolved: dict[str, dict[str, Any]] = {}
    for name, entry in tomllib.loads((TABLES / "recipes.toml").read_text(encoding="utf-8")).items():
        base = resolved[entry.pop("base")] if "base" in entry else defaults
        if entry.pop("task_table", False):
            entry["tasks"] = task_table(name)
        if "search" in entry:
            entry["search"] = {field: tuple(values) for field, values in entry["search"].items()}
        resolved[name] = {**base, **entry, "name": name}
    return {name: Recipe(**values) for name, values in resolved.items()}


RECIPES = load_recipes()
UNIFORM = RECIPES["uniform"]
