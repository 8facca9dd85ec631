"""The argument parser: it names the nearest valid option or choice, and accepts no abbreviated options."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

from ..recipes import FIELDS

ALIASES = {"learning_rate": "lr", "batch": "batch_size", "bs": "batch_size", "wd": "weight_decay"}
ALIASES |= {"img_size": "image_size", "warmup": "warmup_epochs", "opt": "optimizer", "smoothing": "label_smoothing"}
"""Names of other trainers for fields of a recipe."""


class Parser(argparse.ArgumentParser):
    """Argument parser that suggests the nearest valid choice and accepts no abbreviated options."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # a command: an unknown option is named before a missing one
            self._check_options(words)
        return super().parse_known_args(words, namespace)

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
            self.error(f"unknown option {option}{_nearest(option, self._option_string_actions)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            raise argparse.ArgumentError(action, error.message + _nearest(value, action.choices or ())) from None


def _nearest(name: Any, choices: Any) -> str:
    from ...datasets.task import nearest  # numpy: not for --help

    return nearest(str(name), list(choices))
