"""Arguments of Python functions as options of the command line."""

import contextlib
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...datasets.reading import expanded
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
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            words += [option, *(f"{key}={_setting(setting)}" for key, setting in value.items())]
        elif isinstance(value, Iterable) and not isinstance(value, str):  # also a set, an array or an iterator
            words += [option, *map(word, value)]
        else:  # one word, since a value may begin with a hyphen
            words.append(option if value is True else f"{option}={word(value)}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return parser().parse_args(words)
    except SystemExit:
        message = errors.getvalue().rpartition("error: ")[2].partition("\nusage: ")[0].strip()
        subject, _, complaint = in_python(message).partition(": ")
        for name in options.keys() & re.split(r"\W+", subject):
            if complaint.startswith("ignored explicit argument"):
                message = f"argument {name}: is on or off; give True or False, not {options[name]!r:.80}"
            elif complaint.startswith("expected") and options[name] is True:
                message = f"argument {name}: expected a value, not True"
        raise ValueError(in_python(message)) from None


def folder_of(value: Any, name: str) -> Path:
    """Return the folder that an argument gives; raise `ValueError` if the value is no path."""
    try:
        return expanded(value)
    except TypeError:
        raise ValueError(f"{name} must be the path of a folder, not {value!r:.80}") from None


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
