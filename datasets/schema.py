"""Check values that others may have written against the types of a schema.

A schema is a type that msgspec understands: a struct, a dataclass, a `TypedDict` or a container of these.  Floats are
finite, integers have at most 4,300 digits (64 bits where the schema says `Whole`), and text is valid Unicode.
"""

import re
import tomllib
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec

DEEPEST = 32
"""Levels of lists and objects inside each other that JSON may have (our choice; records have about 5)."""

Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A whole number of 64 bits."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A whole number from 0."""
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
"""A whole number from 1."""

T = TypeVar("T")


class Invalid(ValueError):
    """A value that its schema refuses: `field` (such as `result.accuracy`, or empty) and `reason`."""

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.reason, self.field = reason, field


_ABOUT_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
"""Messages of msgspec that name a field in their text."""


def from_json(data: bytes | str, kind: type[T], field: str = "", deepest: int | None = DEEPEST) -> T:
    """Return JSON as a value of a type.

    Args:
        field: Name of the value in messages.
        deepest: Most levels of nesting; None for types without `Any`, which keep no deep value.

    Raises:
        Invalid: The text is not JSON, is nested too deeply, or a value has another type.
    """
    if deepest is not None and _is_deeper(data if isinstance(data, bytes) else data.encode(errors="replace"), deepest):
        raise Invalid(f"is nested more than {deepest} levels deep", field)
    return _checked(lambda: _decoder(kind).decode(data), field)


def from_values(values: Any, kind: type[T], field: str = "") -> T:
    """Return plain values, such as those of a TOML file, as a value of a type; raise `Invalid` like `from_json`."""
    return _checked(lambda: msgspec.convert(values, kind), field)


def from_toml(text: str, kind: type[T]) -> T:
    """Return TOML as a value of a type; raise `Invalid` if it is not TOML or a value has another type."""
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise Invalid("is not valid TOML: its values are nested too deeply") from None
    except ValueError as error:
        raise Invalid(f"is not valid TOML: {error}") from None
    return from_values(values, kind)


def _checked(parse: Callable[[], T], field: str) -> T:
    """Return the parsed value; errors become `Invalid` with the path of the value below `field`."""
    try:
        return parse()
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `")
        where = field + place.rstrip("`").removeprefix("$")
        if about_field := _ABOUT_FIELD.fullmatch(reason):
            reason = "is missing" if about_field[1] == "missing required" else "is an unknown field"
            where += f".{about_field[2]}"
        raise Invalid(reason, where.removeprefix(".")) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Invalid(f"is not JSON ({error})", field) from None
    except RecursionError:
        raise Invalid("is nested too deeply", field) from None


@cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


def _is_deeper(data: bytes, deepest: int) -> bool:
    if data.count(b"[") + data.count(b"{") <= deepest:
        return False
    depth = 0
    for match in re.finditer(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', data, re.DOTALL):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match[0], 0)
        if depth > deepest:
            return True
    return False
