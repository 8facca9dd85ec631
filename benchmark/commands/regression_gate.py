"""The regression gate of `smoke`: stored ranges of accuracies and parameter counts, and what left them."""

import errno
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryFile
from typing import Any

import pandas as pd
from tabulate import tabulate

from ...datasets.atomic_io import PREFIX, make_folder
from ..spec import fingerprint
from ..storage.json_io import BROKEN, from_text, write_atomically

FORMAT = 1
SIGMAS = 4.0
"""Width of a range to either side, in standard errors of an accuracy measured on the test images (ours).  The same
machine repeats its numbers exactly; the range allows for other processors and library versions."""

MEAN = "mean of tasks"


class BaselineError(Exception):
    """A baseline that cannot be read or written, or was made under other conditions."""


@dataclass(frozen=True)
class Verdict:
    """One line of the comparison."""

    method: str
    what: str
    """A task, `mean of tasks`, or `parameters`."""
    now: float | None
    """Accuracy in [0, 1] or a count; None when there is no result."""
    low: float
    high: float

    @property
    def regressed(self) -> bool:
        """Lower than ever allowed, missing, or another number of parameters; better than the range is no regression."""
        return self.now is None or self.now < self.low or (self.what == "parameters" and self.now != self.low)

    @property
    def inside(self) -> bool:
        return self.now is not None and self.low <= self.now <= self.high


def write_baseline(path: Path, runs: pd.DataFrame, test_images: int) -> None:
    """Store the ranges that `runs` (rows of `Store.frame`) allow; every accuracy was measured on `test_images`."""
    methods = {}
    for spec, accuracies, parameters in _by_method(runs):
        margin = {
            what: SIGMAS * math.sqrt(0.25 / (test_images * (len(accuracies) - 1 if what == MEAN else 1)))
            for what in accuracies
        }
        methods[spec] = {
            "parameters": parameters,
            "accuracy": {
                what: [round(max(0.0, value - margin[what]), 4), round(min(1.0, value + margin[what]), 4)]
                for what, value in accuracies.items()
            },
        }
    content = {"format": FORMAT, "conditions": _conditions(runs), "methods": methods}
    write_atomically(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


@dataclass(frozen=True)
class Baseline:
    """A stored baseline, its values checked."""

    path: Path
    conditions: dict[str, Any]
    ranges: list[tuple[str, str, float, float]]
    """Method, what (as in `Verdict`), lowest and highest value."""


def read_baseline(path: Path) -> Baseline:
    """Raises `BaselineError`: the file is missing, damaged, or of another format."""
    try:
        stored = from_text(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']}")
        ranges = []
        for spec, own in sorted(stored["methods"].items()):
            ranges.append((spec, "parameters", own["parameters"], own["parameters"]))
            ranges += [(spec, what, low, high) for what, (low, high) in sorted(own["accuracy"].items())]
        for spec, what, low, high in ranges:
            if not all(isinstance(end, int | float) for end in (low, high)):
                raise ValueError(f"the range of {spec} and {what} is no pair of numbers")
        return Baseline(path, stored["conditions"], ranges)
    except FileNotFoundError:
        raise BaselineError(f"no baseline at {path}; make one with `smoke --write-baseline {path}`") from None
    except KeyError as error:
        raise BaselineError(f"cannot read baseline {path}: it has no {error}") from None
    except (OSError, *BROKEN) as error:
        raise BaselineError(f"cannot read baseline {path}: {error}") from None


def check_writable(path: Path) -> None:
    """See that a baseline can be written, before minutes are spent on what it will hold.

    Raises:
        BaselineError: it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        make_folder(path.parent)
        with TemporaryFile(prefix=PREFIX, dir=path.parent):
            pass
    except OSError as error:
        raise BaselineError(f"cannot write baseline {path}: {error.strerror}; name another file") from None


def compare(baseline: Baseline, runs: pd.DataFrame) -> list[Verdict]:
    """Every stored range against what was measured now.

    Raises:
        BaselineError: it was made with another recipe, backbone, protocol or data.
    """
    if baseline.conditions != _conditions(runs):
        raise BaselineError(
            f"baseline {baseline.path} was made with another recipe, backbone or task version; "
            f"if that change is meant, make a new one with `smoke --write-baseline {baseline.path}`"
        )
    now = {spec: {"parameters": parameters, **accuracies} for spec, accuracies, parameters in _by_method(runs)}
    return [Verdict(spec, what, now.get(spec, {}).get(what), low, high) for spec, what, low, high in baseline.ranges]


def diff_table(verdicts: Iterable[Verdict]) -> str:
    """What left its range, one line each; or one line that nothing did."""
    verdicts = list(verdicts)
    odd = [verdict for verdict in verdicts if verdict.regressed or not verdict.inside]
    if not odd:
        return f"gate: all {len(verdicts)} values are inside their ranges"
    rows = [(v.method, v.what, _shown(v, v.now), f"{_shown(v, v.low)} .. {_shown(v, v.high)}", _word(v)) for v in odd]
    header = ("method", "what", "now", "allowed", "")
    return "gate:\n" + tabulate(rows, header, tablefmt="simple", disable_numparse=True)


def _word(verdict: Verdict) -> str:
    if verdict.now is None:
        return "MISSING"
    return "REGRESSED" if verdict.regressed else "better than the baseline"


def _shown(verdict: Verdict, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if verdict.what == "parameters" else f"{100 * value:.1f} %"


def _by_method(runs: pd.DataFrame) -> list[tuple[str, dict[str, float], int]]:
    """(spec, accuracy by task and their mean, each averaged over seeds, trainable parameters without head)."""
    found = []
    for spec, own in runs.groupby("spec", sort=True):
        tasks = {task: fmean(own.loc[own["task"] == task, "accuracy"]) for task in sorted(set(own["task"]))}
        found.append(
            (str(spec), {**tasks, MEAN: sum(tasks.values()) / len(tasks)}, int(own["trainable_params"].iloc[0]))
        )
    return found


def _conditions(runs: pd.DataFrame) -> dict[str, Any]:
    columns = ["backbone", "backbone_sha256", "recipe_base", "task", "task_version", "data", "seed"]
    return {
        "backbone": sorted(set(runs["backbone"])),
        "recipe": sorted(set(runs["recipe_base"])),
        "fingerprint": fingerprint([sorted({str(value) for value in runs[column]}) for column in columns]),
    }
