"""Checks of hyper-parameters against the type annotations of a method's fields."""

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np


@dataclass(frozen=True)
class Minimum:
    """The smallest allowed value of an annotated number."""

    value: int

    def allows(self, number: float) -> bool:
        return number >= self.value

    def __str__(self) -> str:
        return f"at least {self.value}"


@dataclass(frozen=True)
class Below:
    """A value that an annotated number does not reach."""

    value: int

    def allows(self, number: float) -> bool:
        return number < self.value

    def __str__(self) -> str:
        return f"below {self.value}"


PositiveInt = Annotated[int, Minimum(1)]
"""The type of a field that holds a whole number of at least 1, such as a rank."""

Rate = Annotated[float, Minimum(0), Below(1)]
"""The type of a field that holds the probability of dropping something."""

DESCRIPTIONS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text in quotes",
    dict: "a dictionary of plain values with text as keys",
    list: "a list of plain values",
    **dict.fromkeys((tuple, set, frozenset), "a list, annotated as list (run IDs hold no tuples and sets)"),
    NoneType: "None",
}
"""Types as error messages name them."""


def coerce(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Check arguments against the annotations of `cls`; scalars of numpy, and whole numbers in float fields, convert.

    The conversion makes `alpha=4` and `alpha=4.0` the same method with the same run ID.

    Raises:
        ValueError: a value does not have the type of its field; the message says what is allowed.
    """
    hints = _type_hints(cls)
    coerced: dict[str, Any] = {}
    for name, value in arguments.items():
        hint = hints.get(name, Any)
        value = value.item() if isinstance(value, np.generic) else value
        if problem := _problem(value, hint):
            raise ValueError(f"{name} must be {problem}, not {value!r:.60}")
        coerced[name] = float(value) if type(value) is int and _is_float(hint) else value
    return coerced


@cache
def _type_hints(cls: type) -> dict[str, Any]:
    """Return the types of the fields, without those that cannot be resolved, as after an import for type checkers."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, annotation in vars(base).get("__annotations__", {}).items():
            alone = type(name, (), {"__annotations__": {name: annotation}, "__module__": base.__module__})
            with suppress(NameError):
                hints |= get_type_hints(alone, include_extras=True)
    return hints


def _problem(value: Any, hint: Any) -> str | None:
    """Return a description of the allowed values, or None if `value` is one of them."""
    if _fits(value, hint):
        return None
    if get_origin(hint) is Annotated and _fits(value, get_args(hint)[0]):
        return " and ".join(map(str, _limits(hint)))
    return _describe(hint)


def _limits(hint: Any) -> list[Minimum | Below]:
    return [limit for limit in get_args(hint)[1:] if isinstance(limit, Minimum | Below)]


def _is_float(hint: Any) -> bool:
    """Return True if every number of this type is a float."""
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return float in options and int not in options


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return _fits(value, args[0]) and all(limit.allows(value) for limit in _limits(hint))
    if origin is Literal:
        return any(type(value) is type(allowed) and value == allowed for allowed in args)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in args)
    if origin is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if origin in (int, bool, str, NoneType):
        return type(value) is origin and (origin is not str or is_plain(value))
    if isinstance(origin, type) and origin is not Any and not isinstance(value, cast(type, origin)):
        return False
    return is_plain(value)


def is_plain(value: Any) -> bool:
    """Return True if JSON can represent the value exactly."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        return json.loads(text.encode()) == value  # half a surrogate pair cannot be encoded
    except (TypeError, ValueError, RecursionError):
        return False


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return _describe(args[0])
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}" if len(args) > 1 else " or ".join(map(repr, args))
    if origin in (Union, UnionType):
        return " or ".join(map(_describe, args))
    return DESCRIPTIONS.get(origin, "a plain value")
