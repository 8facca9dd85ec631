"""Read method specs such as `lora(rank=4)`: names or titles, with literal arguments."""

import ast
import difflib
import re
from dataclasses import fields
from typing import Any

from .base import METHODS, Method
from .composed import compose


def parse(spec: str) -> Method:
    """Create the method that a spec string describes: `"lora"`, `"lora(rank=4)"`, or with the title, `"LoRA(rank=4)"`.

    `"lora(rank=4) + bitfit"` is a combination, see `composed`.

    Raises:
        ValueError: wrong syntax, unknown method, or unknown or invalid argument; the message lists what exists.
    """
    if len(texts := _parts(spec)) > 1:
        return compose([parse(text) for text in texts])
    name, arguments = _split(_by_title(spec))
    if name not in METHODS:
        raise ValueError(
            f"no method {name!r}{_did_you_mean(_near(name)) or '.'} See `vtab-peft list methods`; "
            "one of your own needs its file: give it as --plugin FILE, or import it in Python"
        )
    cls = METHODS[name]
    known = [field.name for field in fields(cls)]
    for argument in arguments:
        if argument not in known:
            hint = _did_you_mean(difflib.get_close_matches(argument.casefold(), known, n=1)) or "."
            takes = ", ".join(known) or "no arguments"
            raise ValueError(f"method {name!r} has no argument {argument!r}{hint} It takes: {takes}")
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{spec}: {error}") from None


def _parts(spec: str) -> list[str]:
    """Split a combination at each plus between spaces that is outside brackets."""
    parts: list[str] = []
    for piece in re.split(r"\s\+\s", spec):
        if parts and parts[-1].count("(") > parts[-1].count(")"):
            parts[-1] += f" + {piece}"
        else:
            parts.append(piece)
    return parts


def _by_title(spec: str) -> str:
    """Replace the title of a method by its name, if that is what the spec begins with, in any case."""
    names = {cls.title.casefold(): name for name, cls in reversed(METHODS.items()) if cls.title}
    head, bracket, rest = spec.partition("(")
    if head in METHODS:
        return spec
    whole = names.get(spec.strip().casefold())
    return whole or names.get(head.strip().casefold(), head) + bracket + rest


def _near(spec: str) -> list[str]:
    """Return up to three registered names that a misspelt spec may mean.

    Names and titles that differ only in case, spaces, hyphens and underscores come before similar spellings.
    """
    names = {_normalise(text): known for known, cls in METHODS.items() for text in (cls.title, known) if text}
    wanted = _normalise(spec), _normalise(spec.partition("(")[0])
    close = [text for text in wanted if text in names] or difflib.get_close_matches(wanted[1], names, n=3)
    return list(dict.fromkeys(names[text] for text in close))


def _normalise(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.casefold())


def _did_you_mean(close: list[str]) -> str:
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _split(spec: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of a spec string."""
    hint = "" if spec.partition("(")[0] in METHODS else _did_you_mean(_near(spec))
    if "+" in spec:
        hint = ", and a combination with spaces, as in lora(rank=4) + bitfit"
    malformed = ValueError(f"cannot read method {spec!r}: write it as name or name(argument=value, ...){hint}")
    try:
        node = ast.parse(spec.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise malformed from None
    if isinstance(node, ast.Name):
        return node.id, {}
    if isinstance(node, ast.Tuple):
        raise ValueError(f"cannot read method {spec!r}: separate methods by spaces, not by commas")
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise malformed
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise malformed
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise ValueError(f"method {spec!r}: {_not_literal(keyword.arg, keyword.value)}") from None
    return node.func.id, arguments


def _not_literal(argument: str, value: ast.expr) -> str:
    """Return what is wrong with a value that is no literal, such as `qv` without quotes."""
    if isinstance(value, ast.Name):
        constant = value.id.capitalize()
        right = constant if constant in ("True", "False", "None") else repr(value.id)
        return f"write {argument}={right} instead of {argument}={value.id}"
    return f"the value of {argument} must be a number, a text in quotes, True, False, None, or a list or dict of them"
