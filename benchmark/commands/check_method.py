"""The command `check-method`: run the checks of the suite on the methods of a plug-in file."""

import argparse
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from ...methods import METHODS, parse
from ...methods.plugin import load_plugin, own_frame
from ..engine.errors import LossTermError
from ..method_checks.checks import CHECKS, CLASS_CHECKS, Check, reason_to_skip
from ..method_checks.class_checks import likely_slips, missing_facts
from ..method_checks.tiny_models import Case, CheckFailed, backbones_for
from ..reporting.wording import pluralize

WIDTH = 100
"""Width of explanations, in characters (ours, as logs are read at any width)."""


def check_method(options: argparse.Namespace) -> int:
    """Print a table of results for each method of the file, and return exit status 1 if a check fails.

    Raises:
        ValueError: the file cannot be loaded, or `--only` names neither a method nor a check.
    """
    if not (registered := load_plugin(options.file)):
        raise ValueError(f"{options.file} registers no method; this command checks methods, not backbones")
    names, checks = _selected(registered, options.only)
    torch.set_num_threads(1)  # the models are too small for more
    failed = [name for name in names if _report(name, options.file, checks)]
    return 1 if failed else 0


def run_check(check: Check, case: Case, file: Path) -> str | None:
    """Return what is wrong and what to do, or None if the check passes."""
    try:
        check(case)
    except CheckFailed as failure:
        return f"{failure.found}. {failure.advice}."
    except LossTermError as error:
        return f"{error}."
    except (Exception, SystemExit) as error:  # user code can raise anything
        return _crash(error, file)
    return None


def _selected(registered: Sequence[str], only: str | None) -> tuple[Sequence[str], Sequence[Check]]:
    if only is None:
        return registered, CHECKS
    if only in registered:
        return [only], CHECKS
    name = "check_" + only.replace(" ", "_").removeprefix("check_")
    checks = [check for check in CHECKS if check.__name__ == name]
    if not checks:
        known = f"methods: {', '.join(registered)}; checks: {', '.join(check.__name__ for check in CHECKS)}"
        raise ValueError(f"--only {only!r} is neither a method of the file nor a check. Known {known}")
    return registered, checks


def _report(name: str, file: Path, checks: Sequence[Check]) -> bool:
    """Print the table of one method and return True if a check fails."""
    print(f"{name}, from {file}\n")
    try:
        method = parse(name)
    except (Exception, SystemExit) as error:
        print(f"{name} cannot be created with its defaults: {_crash(error, file)}\n")
        return True
    width, failed, skipped = max(len(check.__name__) for check in checks), 0, 0
    backbones = backbones_for(method)
    cases = [Case(method, backbone) for backbone in backbones]
    explained: dict[str, str] = {}
    print(f"{'check':<{width}}  {'  '.join(backbones)}\n{'-' * (width + sum(len(name) + 2 for name in backbones))}")
    for check in checks:
        reason = reason_to_skip(check, method)
        problems = dict.fromkeys(backbones) if reason else _problems(check, cases, file)
        words = {name: "FAILS" if problems[name] else "-" if reason else "ok" for name in backbones}
        verdicts = [f"{words[name]:<{len(name)}}" for name in backbones]
        print(f"{check.__name__:<{width}}  {'  '.join(verdicts)}".rstrip(), flush=True)
        for text in dict.fromkeys(text for text in problems.values() if text):
            where = ", ".join(backbone for backbone in backbones if problems[backbone] == text)
            shown = f"as in {explained[text]}" if text in explained else text
            _explain(shown if check in CLASS_CHECKS else f"{where}: {shown}")
            explained.setdefault(text, check.__name__)
        if reason:
            _explain(f"does not apply: {reason}")
        failed, skipped = failed + any(problems.values()), skipped + bool(reason)
    warnings = list(likely_slips(METHODS[name]))
    if missing := missing_facts(METHODS[name]):
        warnings.insert(0, f"{', '.join(missing)} missing; lists and tables have a gap there")
    if warnings:
        print()  # they are of the class, not of the last check
    for text in warnings:
        print(textwrap.fill(f"warning: {text}", WIDTH, subsequent_indent="    ", break_long_words=False))
    print(f"\n{name}: {_verdict(len(checks) - skipped, failed, skipped)}\n")
    return failed > 0


def _verdict(applied: int, failed: int, skipped: int) -> str:
    """Return the last line of a table in words."""
    checks = pluralize(applied, "check")
    verdict = f"{failed} of {checks} failed" if failed else f"{'all ' * (applied > 1)}{checks} passed"
    return verdict + (f"; {skipped} {'does' if skipped == 1 else 'do'} not apply" if skipped else "")


def _problems(check: Check, cases: Sequence[Case], file: Path) -> dict[str, str | None]:
    """Run a check on every backbone and return the problem, or None, for each."""
    if check in CLASS_CHECKS:
        return dict.fromkeys((case.backbone for case in cases), run_check(check, cases[0], file))
    return {case.backbone: run_check(check, case, file) for case in cases}


def _explain(text: str) -> None:
    print(textwrap.indent(textwrap.fill(text, WIDTH - 4, break_long_words=False), "    "))


def _crash(error: BaseException, file: Path) -> str:
    """Return the error's type and message and the innermost line of the user's file."""
    frame = own_frame(error, file) or traceback.extract_tb(error.__traceback__)[-1]
    message = textwrap.shorten(str(error), 300, placeholder=" ...")
    return f"{type(error).__name__}: {message}, in {Path(frame.filename).name}:{frame.lineno}: {frame.line}"
