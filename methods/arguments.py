"""Whether the arguments that people type are of the kinds that a method's fields say."""

import json
import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text in quotes",
    dict: "a dictionary of plain values",
    NoneType: "None",
}


def check_arguments(cls: type, arguments: dict[str, Any]) -> None:
    """Raises `ValueError` when one is of another kind than its field, with what it must be."""
    try:
        hints = get_type_hints(cls)
    except NameError:  # a plug-in whose annotations cannot be looked up
        hints = {}
    for name, value in arguments.items():
        hint = hints.get(name, Any)
        if not _fits(value, hint):
            raise ValueError(f"{name} must be {_words(hint)}, not {value!r:.60}")


def _fits(value: Any, hint: Any) -> bool:
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return any(type(value) is type(allowed) and value == allowed for allowed in inside)
    if kind in (Union, UnionType):
        return any(_fits(value, one) for one in inside)
    if kind is float:
        return type(value) in (int, float) and abs(value) < math.inf
    if kind in (int, bool, str, NoneType):
        return type(value) is kind
    return (not isinstance(kind, type) or isinstance(value, kind)) and _is_plain(value)


def _is_plain(value: Any) -> bool:
    """Whether a result's JSON can say it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        return False


def _words(hint: Any) -> str:
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return f"one of {', '.join(map(str, inside))}" if len(inside) > 1 else " or ".join(map(repr, inside))
    if kind in (Union, UnionType):
        return " or ".join(map(_words, inside))
    return WORDS.get(kind, "a plain value")
