"""The verb `check-method`: does a method of one's own keep the contract that the suite's methods keep?"""

import argparse
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from ...methods import parse
from ...methods.plugin import load_plugin
from ..method_checks.checks import CHECKS, OF_THE_CLASS, Check, sentence
from ..method_checks.tiny_models import Case, Violation, backbones_for

WIDTH = 100
"""Of the lines that explain, in characters (ours: logs are read at any width)."""


def check_method(options: argparse.Namespace) -> int:
    """Print a table of verdicts per method that the file registers; exit status 1 unless all checks hold.

    Raises:
        ValueError: the file cannot be loaded, or `--only` names neither a method nor a check.
    """
    names, checks = _chosen(load_plugin(options.file), options.only)
    torch.set_num_threads(1)  # the models are too small for more
    failed = [name for name in names if _report(name, options.file, checks)]
    return 1 if failed else 0


def complaint(check: Check, case: Case, file: Path) -> str | None:
    """What is wrong, and None when nothing is."""
    try:
        check(case)
    except Violation as violation:
        return f"{violation.found}. {violation.advice}."
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        return _crash(error, file)
    return None


def _chosen(registered: Sequence[str], only: str | None) -> tuple[Sequence[str], Sequence[Check]]:
    if only is None:
        return registered, CHECKS
    if only in registered:
        return [only], CHECKS
    checks = [check for check in CHECKS if check.__name__ == only.replace(" ", "_")]
    if not checks:
        there = f"methods: {', '.join(registered)}; checks: {', '.join(map(sentence, CHECKS))}"
        raise ValueError(f"--only {only!r} is neither a method of the file nor a check. There are {there}")
    return registered, checks


def _report(name: str, file: Path, checks: Sequence[Check]) -> bool:
    """Print the table of one method; whether something failed."""
    print(f"{name}, from {file}\n")
    try:
        method = parse(name)
    except (Exception, SystemExit) as error:
        print(f"{name} cannot be made with its defaults: {_crash(error, file)}\n")
        return True
    width, failed = max(len(sentence(check)) for check in checks), 0
    backbones = backbones_for(method)
    said: dict[str, str] = {}
    print(f"{'check':<{width}}  {'  '.join(backbones)}\n{'-' * (width + sum(len(name) + 2 for name in backbones))}")
    for check in checks:
        found = _complaints(check, [Case(method, backbone) for backbone in backbones], file)
        cells = [f"{'FAILS' if found[backbone] else 'ok':<{len(backbone)}}" for backbone in backbones]
        print(f"{sentence(check):<{width}}  {'  '.join(cells)}".rstrip(), flush=True)
        for text in dict.fromkeys(text for text in found.values() if text):
            where = ", ".join(backbone for backbone in backbones if found[backbone] == text)
            again = f'as in "{said[text]}"' if text in said else text
            _explain(again if check in OF_THE_CLASS else f"{where}: {again}")
            said.setdefault(text, sentence(check))
        failed += any(found.values())
    verdict = f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks hold"
    print(f"\n{name}: {verdict}\n")
    return failed > 0


def _complaints(check: Check, cases: Sequence[Case], file: Path) -> dict[str, str | None]:
    """By backbone."""
    if check in OF_THE_CLASS:
        return dict.fromkeys((case.backbone for case in cases), complaint(check, cases[0], file))
    return {case.backbone: complaint(check, case, file) for case in cases}


def _explain(text: str) -> None:
    print(textwrap.indent(textwrap.fill(text, WIDTH - 4, break_long_words=False), "    "))


def _crash(error: BaseException, file: Path) -> str:
    """Type, message and the innermost line of the user's file."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == file.expanduser().resolve()]
    frame = (own or frames)[-1]
    message = textwrap.shorten(str(error), 300, placeholder=" ...")
    return f"{type(error).__name__}: {message}, in {Path(frame.filename).name}:{frame.lineno}: {frame.line}"
