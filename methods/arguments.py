"""The arguments that people type, as the kinds that a method's fields say."""

import json
import sys
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


def coerce(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """The same arguments, whole numbers as floats where a field is one: `alpha=4` and `alpha=4.0` are one method.

    Raises:
        ValueError: one is of another kind than its field; the message says what it must be.
    """
    try:
        hints = get_type_hints(cls)
    except NameError:  # a plug-in whose annotations cannot be looked up
        hints = {}
    declared: dict[str, Any] = {}
    for name, value in arguments.items():
        hint = hints.get(name, Any)
        if not _fits(value, hint):
            raise ValueError(f"{name} must be {_words(hint)}, not {value!r:.60}")
        declared[name] = float(value) if type(value) is int and _is_float(hint) else value
    return declared


def _is_float(hint: Any) -> bool:
    """Whether a number of this kind is always one with a fraction."""
    one_of = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return float in one_of and int not in one_of


def _fits(value: Any, hint: Any) -> bool:
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return any(type(value) is type(allowed) and value == allowed for allowed in inside)
    if kind in (Union, UnionType):
        return any(_fits(value, one) for one in inside)
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
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
