"""Options of all commands as JSON, for freeze.py."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vtab_peft.benchmark.cli import parser

SAMPLES = ("", "x", "0", "1", "2", "-1", "007", "0.5", "1.5", "1e3", "86401", "nan", "inf", "1/1", "3/8", "9/8")
SAMPLES += ("2147483647", "2147483648", "a/b")
"""Texts that are tried as the value of every option."""


def commands() -> dict[str, list[dict[str, Any]]]:
    """Return the arguments of each command, in the order of its help."""
    return {name: [_action(action) for action in found._actions] for name, found in _parsers("", parser())}


def _parsers(name: str, one: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, one
    for action in one._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from _parsers(f"{name} {word}".strip(), below)


def _action(action: argparse.Action) -> dict[str, Any]:
    group = isinstance(action, argparse._SubParsersAction)
    return {
        "options": list(action.option_strings),
        "dest": action.dest,
        "kind": type(action).__name__.strip("_"),
        "nargs": action.nargs,
        "required": action.required,
        "default": repr(action.default),
        "choices": None if action.choices is None else sorted(map(str, action.choices)),
        "reads": None if group or action.nargs == 0 else _reads(action.type),
    }


def _reads(kind: Callable[[str], Any] | None) -> dict[str, str | None] | str:
    """Return the values of the samples, or the kind of an option that takes any text, or any path that is not empty."""
    found = {text: _read(kind, text) for text in SAMPLES}
    for name, whole, refused in (("text", str, {}), ("path", Path, {"": None})):
        if found == {text: repr(whole(text)) for text in SAMPLES} | refused:
            return name
    return found


def _read(kind: Callable[[str], Any] | None, text: str) -> str | None:
    """Return the value of an option for a text; None where it is refused."""
    try:
        return repr(text if kind is None else kind(text))
    except (argparse.ArgumentTypeError, ValueError, TypeError):
        return None
