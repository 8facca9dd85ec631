"""The named training recipes, read from `recipe_tables/recipes.toml`, and the changes that users make to them.

Values that differ from task to task are in one CSV file per recipe; its first line names the source.
Only the values are taken from papers, not how they were selected: most authors report the best epoch on the test
images.  Recipes are about training.  Arguments of methods that papers tune per task, such as FacT's scale, are not
included: use `tune`, which selects them on val200.

A changed recipe is named after its base and all values that differ, such as `uniform(epochs=20,warmup_epochs=2)`.  So
one set of values has one name and one run ID, however it was typed.
"""

import csv
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .canonical import fingerprint
from .spec import OTHERS, Recipe

TABLES = Path(__file__).with_name("recipe_tables")
LARGEST_FILE = 1 << 20
"""Bytes of the largest recipe file that is read (ours)."""
DERIVED = ("name", "source", "tuned", "tasks", "search", "lr_for_all")
"""Fields that follow from the others, and so cannot be set."""
FIELDS: dict[str, Any] = {name: hint for name, hint in get_type_hints(Recipe).items() if name not in DERIVED}
"""The fields that users can set, and their types."""
ALIASES = {"learning_rate": "lr", "batch": "batch_size", "bs": "batch_size", "wd": "weight_decay"}
ALIASES |= {"img_size": "image_size", "warmup": "warmup_epochs", "opt": "optimizer", "smoothing": "label_smoothing"}
"""Names of other trainers for fields of a recipe."""
OF_ALL_TASKS = ("image_size", "framing")
"""Fields that cannot differ from task to task, because images are decoded and backbones built for them."""
LIMITS: dict[str, tuple[float, float]] = {
    "lr": (1e-12, 1000),
    **dict.fromkeys(("weight_decay", "warmup_lr", "min_lr", "clip_norm", "clip_value"), (0, 1000)),
    **dict.fromkeys(("epochs", "probe_epochs", "batch_size"), (1, 100_000)),
    **dict.fromkeys(("warmup_epochs", "cooldown_epochs", "cosine_epochs", "schedule_lag"), (0, 100_000)),
    **dict.fromkeys(("momentum", "drop_path", "branch_dropout", "mlp_dropout", "label_smoothing"), (0, 0.999)),
    "image_size": (8, 4096),
}
"""Smallest and largest value of each number that a user sets (ours)."""

Values = Mapping[str, Any]


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
    absent = dict.fromkeys(("clip_norm", "clip_value", "image_size", "cosine_epochs"))
    defaults = {**absent, "lr_for_all": False, "tasks": {}, "search": {}}
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


def choose_recipe(text: str | Recipe, settings: Sequence[str] = ()) -> Recipe:
    """Return the recipe of `--recipe`, a name or a .toml file, with the values of `--set` on top.

    The Python API gives a recipe itself.

    Raises:
        ValueError: there is no such recipe, the file is wrong, or a setting is.  The message names file and field.  Or
            no epoch would leave the warm-up's first rate.
    """
    if isinstance(text, Recipe):
        if RECIPES.get(text.name, text) != text:
            raise ValueError(f"{text.name!r} is the name of another recipe; give yours a name of its own")
        chosen = change(text, parse_settings(settings))
    else:
        base, values, tables = (text, {}, {}) if text in RECIPES else _read(Path(text))
        chosen = change(RECIPES[base], {**values, **parse_settings(settings)}, tables)
    for recipe in [chosen.for_task(task) for task in chosen.tasks] or [chosen]:
        _check_warm_up(recipe)
        _check_warm_up(recipe.for_probe())
    return chosen


def _check_warm_up(recipe: Recipe) -> None:
    """Raise `ValueError` if all epochs have the rate with which the warm-up begins, which may be zero."""
    begins_at_lr = recipe.warmup_until == "last epoch" and recipe.warmup_epochs <= 1
    if not recipe.warmup_epochs or begins_at_lr or recipe.warmup_lr >= recipe.lr:
        return
    changes = recipe.epochs - recipe.schedule_lag - (recipe.schedule_per == "epoch")  # epochs until the last change
    if changes <= 0:
        raise ValueError(
            f"recipe {recipe.name!r}: {recipe.epochs} epoch{'s' * (recipe.epochs > 1)} would train at the first rate "
            f"of the warm-up alone, {recipe.warmup_lr:g}; set schedule_per=step schedule_lag=0, or more epochs"
        )


def parse_settings(settings: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Return field -> value of texts such as `lr=3e-4`.

    Raises:
        ValueError: a text is no setting of a recipe; the message names the nearest field.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{option} {setting!r} is not FIELD=VALUE, such as lr=3e-4")
        if "," in text and "=" in text:
            raise ValueError(f"{option} {setting!r}: separate settings by spaces, as in lr=3e-4 epochs=20")
        if name in values:
            raise ValueError(f"{option} has {name!r} twice; give it once")
        values[name] = checked(name, literal(text), option)
    return values


def split_list(text: str) -> list[str]:
    """Split at commas outside brackets and quotes: `lora,ssf(a=1,b=2)` has two parts."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if char == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += char
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            depth += (char in "([{") - (char in ")]}")
    return [part for part in map(str.strip, parts) if part] or [text]


def literal(text: str) -> Any:
    """Return the number or the truth value that a text states, or else the text without quotes."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def checked(name: str, value: Any, where: str) -> Any:
    """Return the value of a field in the field's type; `none` means None.

    Raises:
        ValueError: the field is unknown, or the value has a wrong type or is outside its limits.
    """
    from ..datasets.task import nearest  # numpy: not for --help

    if name not in FIELDS:
        if name in DERIVED:
            raise ValueError(f"{where}: {name} follows from the other fields of a recipe and cannot be set")
        close = nearest(ALIASES.get(name, name), FIELDS)
        raise ValueError(f"{where}: a recipe has no field {name!r:.60}{close}; see `list recipes`")
    hint, shown = FIELDS[name], reprlib.repr(value)
    options = get_args(hint) or (hint,)
    if get_origin(hint) is Literal:
        if value not in options:
            close = nearest(str(value), options)
            raise ValueError(f"{where}: {name} must be one of {', '.join(options)}, not {shown}{close}")
        return value
    if str(value) == "none" and NoneType in options:
        return None
    if bool in options:
        if type(value) is not bool:
            raise ValueError(f"{where}: {name} must be true or false, not {shown}")
        return value
    low, high = LIMITS[name]
    allowed, kind = ((int, float), "number") if float in options else ((int,), "whole number")
    if type(value) not in allowed or not low <= value <= high:
        raise ValueError(f"{where}: {name} must be a {kind} from {low:g} to {high:g}, not {shown}")
    return float(value) if float in options else value


def _read(path: Path) -> tuple[str, dict[str, Any], dict[str, dict[str, Any]]]:
    """Return base, values and tables per task of a recipe file."""
    from ..datasets.reading import read_text
    from ..datasets.task import DataError, nearest

    try:
        content = tomllib.loads(read_text(path, LARGEST_FILE))
    except DataError as error:
        raise ValueError(f"{error}; --recipe takes a name of `list recipes` or such a file") from None
    except RecursionError:
        raise ValueError(f"{path} is not valid TOML: its values are nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    base, tables = content.pop("base", None), content.pop("tasks", {})
    if not isinstance(base, str) or base not in RECIPES:
        known = f"{nearest(str(base), RECIPES)}; known are {', '.join(RECIPES)}"
        raise ValueError(f"{path}: base must name the recipe to start from, not {reprlib.repr(base)}{known}")
    if not isinstance(tables, dict) or not all(isinstance(own, dict) for own in tables.values()):
        raise ValueError(f"{path}: tasks must be tables of fields, such as [tasks.dtd]")
    values = {name: checked(name, value, str(path)) for name, value in content.items()}
    for task, own in tables.items():
        if shared := [name for name in OF_ALL_TASKS if name in own]:
            raise ValueError(f"{path} [tasks.{task}]: {shared[0]} must be the same for all tasks; set it above")
    found = {
        task: {name: checked(name, value, f"{path} [tasks.{task}]") for name, value in own.items()}
        for task, own in tables.items()
    }
    return base, values, found


def change(base: Recipe, values: Values, tables: Mapping[str, Values] | None = None) -> Recipe:
    """Return a recipe with other values; it is the base itself if nothing differs.

    A value replaces those of the base's tables too.  Where the epochs change, warm-up, cosine and cool-down keep
    their share of them unless they are set.

    Args:
        values: checked values of fields.
        tables: task -> checked values that only hold for this task.

    Raises:
        ValueError: the values contradict each other.
    """
    own = asdict(base)
    values = with_schedule(values, own)
    in_tables = {name for table in base.tasks.values() for name in table}
    values = {name: value for name, value in values.items() if value != own[name] or name in in_tables}
    merged = {**own, **values}
    tasks = {task: {n: v for n, v in table.items() if n not in values} for task, table in base.tasks.items()}
    found = {
        task: {n: v for n, v in with_schedule(table, merged).items() if v != {**merged, **tasks.get(task, {})}[n]}
        for task, table in (tables or {}).items()
    }
    found = {task: table for task, table in found.items() if table}
    if not values and not found:
        return base
    differing = [f"{name}={text_of(value)}" for name, value in sorted(values.items())]
    parts = [f"{t}: {n}={text_of(v)}" for t, table in sorted(found.items()) for n, v in sorted(table.items())]
    merged_tasks = {task: {**tasks.get(task, {}), **found.get(task, {})} for task in {**tasks, **found}}
    if found and not base.tasks:
        merged_tasks.setdefault(OTHERS, {})
    name = ",".join([*differing, *([f"tasks={fingerprint(found, 8)}"] if found else [])])
    changed = replace(
        base,
        **values,
        name=f"{base.name}({name})",
        source=f"base recipe {base.name}, changed: {', '.join([*differing, *parts])}",
        lr_for_all=base.lr_for_all or "lr" in values,
        tuned=base.tuned or any("lr" in table for table in found.values()),
        tasks=merged_tasks,
    )
    for task in changed.tasks:
        changed.for_task(task)  # checks the values of the task together
    return changed


def with_schedule(values: Values, base: Values) -> dict[str, Any]:
    """Add the epochs of warm-up, cosine and cool-down, if the epochs change and these are not set."""
    if values.get("epochs", base["epochs"]) == base["epochs"]:
        return dict(values)
    share = values["epochs"] / base["epochs"]
    parts = [name for name in ("warmup_epochs", "cosine_epochs", "cooldown_epochs") if base[name] is not None]
    return {name: float(f"{base[name] * share:.6g}") for name in parts} | dict(values)


def text_of(value: Any) -> str:
    """Return the shortest text that `literal` reads as the value."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
