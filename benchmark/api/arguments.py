"""Arguments of Python functions as options of the command line."""

import contextlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

from ..cli import parser
from .wording import in_python


def parse_arguments(command: str, options: Mapping[str, Any]) -> Any:
    """Return the parsed options of a command; raise `ValueError` where the command line would end with an error."""
    words = [command]
    options = {name: _plain(value) for name, value in options.items()}
    if "help" in options:
        raise ValueError(f"unknown option help; see help(vtab_peft.{command})")
    for name, value in options.items():
        if value is None or value is False or (isinstance(value, Mapping) and not value):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(value, Mapping):
            words += [f"{key}={_setting(setting)}" for key, setting in value.items()]
        elif isinstance(value, Iterable) and not isinstance(value, str):  # also a set, an array or an iterator
            words += map(word, value)
        elif value is not True:
            words.append(word(value))
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return parser().parse_args(words)
    except SystemExit:
        message = errors.getvalue().rpartition("error: ")[2].partition("\nusage: ")[0].strip()
        on = [name for name, value in options.items() if value is True]
        if named := [name for name in on if f" {name}: expected" in in_python(message)]:
            message = f"argument {named[0]}: expected a value, not True"
        if message.startswith("unrecognized arguments"):
            message += "; options that are on or off take True or False"
        raise ValueError(in_python(message)) from None


def _plain(value: Any) -> Any:
    """Return a scalar of numpy or torch as Python's; other values stay."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def word(value: Any) -> str:
    """Return a value as the command line takes it; raise `ValueError` for a class of methods."""
    if isinstance(value, type) and hasattr(value, "spec"):
        raise ValueError(f"give a method as a spec or as an instance, {value.__name__}(), not as a class")
    return value.spec() if hasattr(value, "spec") else str(_plain(value))


def _setting(value: Any) -> str:
    """Return a value as `--set` reads it: `none`, `true` and `false` in small letters."""
    text = str(_plain(value))
    return text.lower() if text in ("None", "True", "False") else text
