"""The regression gate of `smoke`: compare accuracies and parameter counts with the ranges of a stored baseline."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import msgspec

from ...datasets.reading import read_json
from ...datasets.schema import Count, from_json
from ...datasets.task import DataError
from ..canonical import fingerprint
from ..reporting.text_table import text_table
from ..spec import RunSpec
from ..storage.json_io import write_atomically
from ..storage.schema import Run

SIGMAS = 4.0
"""Half-width of a range in standard errors of a test accuracy (ours).
The same machine repeats its numbers exactly; the range allows for other processors and library versions."""

MEAN = "mean of tasks"
COUNTS = ("parameters", "runs")
"""Values that are no accuracies."""


class _Method(msgspec.Struct):
    parameters: Count
    accuracy: dict[str, tuple[float, float]]
    """Task, or `MEAN` -> lowest and highest accuracy."""


class _Baseline(msgspec.Struct):
    format: Literal[1]
    conditions: dict[str, list[str] | str]
    methods: Annotated[dict[str, _Method], msgspec.Meta(min_length=1)]


class BaselineError(Exception):
    """The baseline cannot be read or written, or was made under other conditions."""


@dataclass(frozen=True)
class Verdict:
    """One compared value."""

    method: str
    what: str
    """A task, "mean of tasks", "parameters" or "runs"."""
    now: float | None
    """Accuracy in [0, 1], or number of parameters or runs; None if there is no result."""
    low: float
    high: float

    @property
    def regressed(self) -> bool:
        """True if the value is missing, an accuracy below its range, or another number of parameters."""
        return self.now is None or self.now < self.low or (self.what == "parameters" and self.now != self.low)

    @property
    def inside(self) -> bool:
        """True if the value is in its range."""
        return self.now is not None and self.low <= self.now <= self.high

    def row(self) -> tuple[str, ...]:
        """Return the row of the printed table."""
        missing = self.now is None or self.what == "runs"
        word = "MISSING" if missing else "REGRESSED" if self.regressed else "better than the baseline"
        return self.method, self.what, self._text(self.now), f"{self._text(self.low)} .. {self._text(self.high)}", word

    def _text(self, value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:,.0f}" if self.what in COUNTS else f"{100 * value:.1f} %"


@dataclass(frozen=True)
class Baseline:
    """A stored baseline with validated values."""

    path: Path
    conditions: dict[str, Any]
    ranges: list[tuple[str, str, float, float]]
    """Method, what (as in `Verdict`), lowest and highest value."""


def write_baseline(path: Path, runs: Sequence[Run], test_images: int) -> None:
    """Store the ranges around the results in `runs`.

    test_images: number of images behind each accuracy.
    """
    methods = {}
    for spec, accuracies, parameters in _by_method(runs):
        ranges = {}
        for what, value in accuracies.items():
            margin = SIGMAS * math.sqrt(0.25 / (test_images * (len(accuracies) - 1 if what == MEAN else 1)))
            ranges[what] = [round(max(0.0, value - margin), 4), round(min(1.0, value + margin), 4)]
        methods[spec] = {"parameters": parameters, "accuracy": ranges}
    content = {"format": 1, "conditions": _conditions([run.spec for run in runs]), "methods": methods}
    data = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    from_json(data, _Baseline)
    write_atomically(path, data)


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        BaselineError: the file is missing, damaged, or has another format.
    """
    if not path.exists():
        raise BaselineError(f"no baseline at {path}; create one with `smoke --write-baseline {path}`")
    try:
        stored = read_json(path, _Baseline)
    except DataError as error:
        raise BaselineError(f"cannot read baseline {error}") from None
    ranges = []
    for spec, own in sorted(stored.methods.items()):
        ranges.append((spec, "parameters", own.parameters, own.parameters))
        ranges += [(spec, what, low, high) for what, (low, high) in sorted(own.accuracy.items())]
    return Baseline(path, stored.conditions, ranges)


def check_conditions(baseline: Baseline, planned: Sequence[RunSpec]) -> None:
    """Raise `BaselineError` if the planned runs have conditions or methods that the baseline does not have."""
    if baseline.conditions != _conditions(planned):
        raise BaselineError(
            f"baseline {baseline.path} was made with another recipe, backbone, seeds or task version; "
            f"if this change is intended, create a new one with `smoke --write-baseline {baseline.path}`"
        )
    compared = {method for method, *_ in baseline.ranges}
    if unknown := ", ".join(dict.fromkeys(s.method.spec for s in planned if s.method.spec not in compared)):
        raise BaselineError(
            f"baseline {baseline.path} has no ranges for {unknown}, so nothing would be compared; create a new one "
            f"with the same --plugin and `smoke --write-baseline {baseline.path}`"
        )


def compare(baseline: Baseline, planned: Sequence[RunSpec], runs: Sequence[Run]) -> list[Verdict]:
    """Compare every stored range with the results in `runs`, and their number per method with that of the plan."""
    now = {spec: {"parameters": parameters, **accuracies} for spec, accuracies, parameters in _by_method(runs)}
    verdicts = [
        Verdict(spec, what, now.get(spec, {}).get(what), low, high) for spec, what, low, high in baseline.ranges
    ]
    counts, there = Counter(spec.method.spec for spec in planned), Counter(run.spec.method.spec for run in runs)
    return verdicts + [Verdict(spec, "runs", there[spec], n, n) for spec, n in counts.items() if there[spec] < n]


def diff_table(verdicts: Iterable[Verdict]) -> str:
    """Return a table of the values outside their ranges, or one line if there are none."""
    verdicts = list(verdicts)
    rows = [verdict.row() for verdict in verdicts if not verdict.inside]
    if not rows:
        return f"gate: all {len(verdicts)} values are inside their ranges"
    header = ("method", "what", "now", "allowed", "")
    return "gate:\n" + text_table(header, rows, "lllll")


def _by_method(runs: Sequence[Run]) -> list[tuple[str, dict[str, float], int]]:
    """Return method spec, accuracy by task (mean over seeds) and their mean, and trainable parameters without head."""
    by_spec: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        by_spec[run.spec.method.spec][run.spec.task.name].append(run)
    found = []
    for spec, by_task in sorted(by_spec.items()):
        tasks = {task: fmean(run.accuracy for run in by_task[task]) for task in sorted(by_task)}
        accuracies = {**tasks, MEAN: sum(tasks.values()) / len(tasks)}
        found.append((spec, accuracies, next(iter(by_task.values()))[0].trainable_params))
    return found


def _conditions(specs: Sequence[RunSpec]) -> dict[str, Any]:
    """Return what a baseline depends on."""
    backbones, recipes = {spec.backbone for spec in specs}, {spec.recipe_base for spec in specs}
    tasks = {spec.task for spec in specs}
    values = [
        {backbone.name for backbone in backbones},
        {backbone.sha256 for backbone in backbones},
        recipes,
        {task.name for task in tasks},
        {str(task.version) for task in tasks},
        {task.data for task in tasks},
        {str(spec.seed) for spec in specs},
    ]
    return {
        "backbone": sorted(values[0]),
        "recipe": sorted(recipes),
        "fingerprint": fingerprint([sorted(texts) for texts in values]),
    }
