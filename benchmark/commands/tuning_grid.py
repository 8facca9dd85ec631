"""The values that a user gives `tune --grid`: fields of the recipe and arguments of methods.  Plain data, no torch."""

import ast
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..plan import MethodInfo
from ..recipes import FIELDS, OF_ALL_TASKS, checked, literal, split_list, text_of

SPELLED = {"True": True, "False": False, "None": None}
"""Values of arguments as they are written in spec strings."""


@dataclass(frozen=True)
class Grid:
    """The values to try that a user gives, sorted, so that the order of typing does not matter."""

    fields: Mapping[str, tuple[Any, ...]]
    """Field of the recipe -> values."""
    arguments: Mapping[str, tuple[Any, ...]]
    """Argument of the methods -> values."""

    def __str__(self) -> str:
        values = {**self.fields, **self.arguments}
        return ",".join(f"{name}={'/'.join(map(text_of, values[name]))}" for name in sorted(values))


def parse_grid(texts: Sequence[str]) -> Grid | None:
    """Return the grid of texts such as `lr=1e-4,3e-4` and `rank=4,8`; None without any.

    Raises:
        ValueError: a text has no values, a field is there twice, or a value is wrong for its field.
    """
    found: dict[str, dict[str, tuple[Any, ...]]] = {"fields": {}, "arguments": {}}
    for text in texts:
        name, _, values = text.partition("=")
        if not values:
            raise ValueError(f"--grid {text!r} is not NAME=VALUE,VALUE, such as lr=1e-4,3e-4")
        if name in OF_ALL_TASKS:
            raise ValueError(f"--grid: {name} is the same for all trials; use --set {name}={split_list(values)[0]}")
        kind = "fields" if name in FIELDS else "arguments"
        tried = [checked(name, literal(v), "--grid") if kind == "fields" else _argument(v) for v in split_list(values)]
        if name in found[kind]:
            raise ValueError(f"--grid has {name!r} twice; give it once with all its values")
        by_place = {_place(value): value for value in tried}
        found[kind][name] = tuple(by_place[place] for place in sorted(by_place))
    return Grid(**found) if texts else None


def _argument(text: str) -> Any:
    """Return an argument's value, spelled as in a spec or as `literal` reads it; 8.0 and 8 are one value."""
    if text[0] in "[{":
        with suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return ast.literal_eval(text)
    value = SPELLED[text] if text in SPELLED else literal(text)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _place(value: Any) -> tuple[str, Any]:
    """Return the key by which values of a grid are sorted and told apart."""
    return str(type(value)), value if isinstance(value, int | float | str) else repr(value)


def check_grid(grid: Grid, methods: Sequence[MethodInfo]) -> None:
    """Raise `ValueError` if the grid has a field of the recipe that is also an argument of a method."""
    for method in methods:
        for name in grid.fields.keys() & set(method.arguments):
            value = text_of(grid.fields[name][0])
            raise ValueError(
                f"--grid: {name} is a field of the recipe and an argument of {method.ref.name}, which differ; leave it "
                f"out, and set the field with --set {name}={value}, the argument with {method.ref.name}({name}={value})"
            )
