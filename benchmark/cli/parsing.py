"""The argument parser: short usage, lists with commas, and the nearest valid option, choice or command in errors."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ..recipes import ALIASES, FIELDS, split_list

COMMANDS = {"train": "run", "fit": "run", "benchmark": "run", "eval": "run", "evaluate": "run", "test": "run"}
COMMANDS |= {"resume": "run", "sweep": "tune", "search": "tune", "hpo": "tune", "show": "list", "ls": "list"}
COMMANDS |= {"leaderboard": "report", "table": "report", "results": "report", "diff": "compare", "infer": "predict"}
"""Names of other programs for commands."""
OPTIONS = {
    **dict.fromkeys(("--output", "--output-dir", "--out", "--save-dir"), "--results"),
    **dict.fromkeys(("--dataset", "--datasets", "--data-set"), "--tasks"),
    **dict.fromkeys(("--data-dir", "--data-path", "--root"), "--data"),
    **dict.fromkeys(("--model", "--arch"), "--backbone"),
    **dict.fromkeys(("--checkpoint", "--ckpt", "--pretrained"), "--weights"),
    **dict.fromkeys(("--gpu", "--gpus", "--cuda"), "--device"),
}
"""Names of other programs for options."""
LONG_USAGE = 6
"""Number of options from which the usage is one line without them (ours)."""


class Parser(argparse.ArgumentParser):
    """Argument parser that suggests the nearest valid choice and accepts no abbreviated options.

    An action with a true attribute `commas` takes lists with commas too.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # a command: an unknown option is named before a missing one
            self._check_options(words)
        elif not words:
            self.print_help()
            self.exit()
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\nusage: {self._short_usage()}; `{self.prog} --help` says more\n")

    def format_help(self) -> str:
        if sum(bool(action.option_strings) for action in self._actions) > LONG_USAGE:
            self.usage = self._short_usage()
        return super().format_help()

    def _short_usage(self) -> str:
        """Return the usage in one line: what is required, other arguments without name, and `[options]`."""
        shown = [_shown(action) for action in self._actions if action.required or not action.option_strings]
        return " ".join([self.prog, *shown, *(["[options]"] if self._subparsers is None else [])])

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if getattr(action, "commas", False):
            arg_strings = [part for text in arg_strings for part in _parts(text)]
        return super()._get_values(action, arg_strings)

    def _check_options(self, words: list[str]) -> None:
        for word, following in zip(words, [*words, ""][1:], strict=True):
            if word == "--":
                return
            option, equals, value = word.partition("=")
            if not re.fullmatch(r"--[\w-]+", option) or option in self._option_string_actions:
                continue
            name = option[2:].replace("-", "_").lower()
            field = ALIASES.get(name, name)
            if field in FIELDS and "--set" in self._option_string_actions:
                shown = value if equals else following if following and not following.startswith("-") else "VALUE"
                self.error(f"{option} is a field of the recipe: use --set {field}={shown}")
            meant = OPTIONS.get(option)
            known = meant in self._option_string_actions
            near = f" (did you mean {meant}?)" if known else _nearest(option, self._option_string_actions)
            self.error(f"unknown option {option}{near}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            choices = [str(choice) for choice in action.choices or ()]
            if isinstance(action, argparse._SubParsersAction):
                names = COMMANDS if COMMANDS.get(str(value)) in choices else {}
                near = f" (did you mean {names[str(value)]}?)" if str(value) in names else _nearest(value, choices)
                message = f"there is no command {value!r}{near}; commands: {', '.join(choices)}"
                raise argparse.ArgumentError(None, message) from None
            raise argparse.ArgumentError(action, error.message + _nearest(value, choices)) from None


def _choices(action: argparse.Action) -> str:
    return f"{{{','.join(map(str, action.choices))}}}" if action.choices else ""


def _shown(action: argparse.Action) -> str:
    """Return an argument as in a usage: `--methods METHODS ...` where several values may follow."""
    value = str(action.metavar or _choices(action) or action.dest.upper())
    words = [*action.option_strings[:1], value, *(["..."] if action.nargs in ("+", "*") else [])]
    return " ".join(words) if action.required else f"[{' '.join(words)}]"


def describe(command: argparse.ArgumentParser) -> None:
    """Let `--help` of each command begin with what the list of commands says of it."""
    for group in command._actions:
        if isinstance(group, argparse._SubParsersAction):
            for listed in group._choices_actions:
                one, text = group.choices[listed.dest], str(listed.help)
                one.description = one.description or f"{text[0].upper()}{text[1:]}."
                describe(one)


def _parts(text: str) -> list[str]:
    """Split a list with commas, unless it is a path."""
    path = os.path.expanduser(text.removeprefix("imagefolder:"))  # noqa: PTH111 - never raises
    return [text] if "/" in text or os.path.exists(path) else split_list(text)  # noqa: PTH110 - never raises


def _nearest(name: Any, choices: Any) -> str:
    from ...datasets.task import nearest  # numpy: not for --help

    return nearest(str(name), list(choices))
