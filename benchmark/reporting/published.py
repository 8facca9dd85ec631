"""Numbers published in papers (results/published): load, check and query them.

Each row carries its source: weights, reported epoch, kind of mean, and whether parameters include the head.  Different
kinds of means are never mixed; if a row has every task, its means are recomputed from the tasks.
"""

import csv
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

from ...datasets.tasks import suite_tasks
from . import method_evidence
from .families import FAMILIES
from .leaderboard_id import VTAB_GROUPS

FOLDER = Path(__file__).resolve().parents[2] / "results" / "published"
MEANS = {"vtab1k": ("mean_19", "mean_groups"), "fgvc": ("mean_5",)}
"""Suite -> kinds of means over all its tasks.  The two of VTAB-1k differ by 2 to 5 points.

A mean whose kind the source does not state is called `mean_reported` and is in no range.
"""


@dataclass(frozen=True)
class Source:
    """A published table; results/published/README.md describes the fields."""

    source: str
    suite: str
    title: str
    reference: str
    place: str
    kind: str
    pretrained: str
    backbones: tuple[str, ...]
    normalisation: str
    selection: str
    test_selected: str
    """`yes` if the reported epoch is the best on the test images, `no`, or `unknown`."""
    seeds: str
    mean: str
    head: str
    note: str

    @property
    def architecture(self) -> str:
        """Return the architecture, such as `ViT-B/16`; rows of different architectures are never compared.

        Pretraining other than on ImageNet-21k is part of it: `ViT-B/16, MAE`.
        """
        name, _, weights = self.pretrained.partition(", ")
        if not weights or weights.startswith("ImageNet-21k"):
            return name.partition(";")[0]
        return f"{name}, {weights.partition(',')[0]}"


@dataclass(frozen=True)
class PublishedNumber:
    """One printed accuracy."""

    accuracy: float
    """Accuracy in percent."""
    params_m: float | None
    flag: str
    """The known error of this number, or empty.  Flagged numbers are shown but excluded from ranges."""


@dataclass(frozen=True)
class PublishedRow:
    """The row of a method in a published table."""

    source: Source
    printed: str
    """The method's name as printed."""
    method: str
    """The registered name of the method, or empty."""
    params_m: float | None
    note: str
    numbers: dict[str, PublishedNumber]
    """Task or mean -> number, in the order of the source."""

    @property
    def tasks(self) -> tuple[float, ...]:
        """Return the accuracy of each task in the suite's order; empty if a task is missing."""
        names = list(suite_tasks(self.source.suite))
        return tuple(self.numbers[name].accuracy for name in names) if set(names) <= self.numbers.keys() else ()

    @property
    def recomputed(self) -> dict[str, float]:
        """Return the means recomputed from the tasks; empty if a task is missing."""
        if not self.tasks:
            return {}
        if self.source.suite == "fgvc":
            return {"mean_5": fmean(self.tasks)}
        tasks = suite_tasks("vtab1k").values()
        groups = {
            f"mean_{group}": fmean(a for a, task in zip(self.tasks, tasks, strict=True) if task.group == group)
            for group in VTAB_GROUPS
        }
        return {**groups, "mean_19": fmean(self.tasks), "mean_groups": fmean(groups.values())}

    def mean(self, name: str) -> float | None:
        """Return a mean as printed or, if it is missing or flagged, recomputed; None if there is neither."""
        printed = self.numbers.get(name)
        return printed.accuracy if printed and not printed.flag else self.recomputed.get(name)

    @property
    def test_selected(self) -> str:
        """Return `yes`, `no` or `unknown`; a row that was copied keeps the unknown selection of its own source."""
        return "unknown" if self.note.startswith("copied") else self.source.test_selected

    @property
    def flagged(self) -> bool:
        return any(number.flag for number in self.numbers.values())


@dataclass(frozen=True)
class PublishedRange:
    """Lowest and highest published accuracy of a task or mean, in percent."""

    low: float
    high: float
    rows: int
    """Number of rows that print it, including copied rows."""
    on_test: int
    """Number of rows whose epoch was selected on the test images."""
    not_on_test: int
    """Number of rows whose epoch was not; of all others it is unknown."""


@cache
def load(folder: Path = FOLDER) -> tuple[PublishedRow, ...]:
    """Load all rows, in the order of the files.

    Raises:
        ValueError: a file is missing, or refers to a source or row that does not exist.
    """
    try:
        sources = {line["source"]: _source(line) for line in _lines(folder / "sources.csv")}
        rows = {
            (line["source"], line["printed"]): PublishedRow(
                sources[line["source"]], line["printed"], _method(line), _float(line["params_m"]), line["note"], {}
            )
            for line in _lines(folder / "rows.csv")
        }
        for line in _lines(folder / "numbers.csv"):
            number = PublishedNumber(float(line["accuracy"]), _float(line["params_m"]), line["flag"])
            rows[line["source"], line["printed"]].numbers[line["task"]] = number
    except FileNotFoundError as error:
        raise ValueError(
            f"published numbers: {error.filename} is missing; restore {folder} from the repository"
        ) from None
    except KeyError as error:
        raise ValueError(f"published numbers: {folder} refers to {error}, which has no entry there") from None
    return tuple(rows.values())


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _method(line: dict[str, str]) -> str:
    """Return the registered method of a row: the one that it names, or the one with the printed name; `-` is none."""
    by_name = {_plain(name): name for name in method_evidence.load()}
    return "" if line["method"] == "-" else line["method"] or by_name.get(_plain(line["printed"]), "")


def _source(line: dict[str, str]) -> Source:
    facts: dict[str, str] = {name: text for name, text in line.items() if name != "backbones"}
    return Source(**facts, backbones=tuple(line["backbones"].split()))


def _float(text: str) -> float | None:
    return float(text) if text else None


def find(query: str, rows: Sequence[PublishedRow]) -> list[PublishedRow]:
    """Return all rows of a method, given its registered or printed name, or of a family of methods.

    Raises:
        ValueError: there is no such name; the message suggests similar ones.
    """
    wanted = _plain(query)
    if related := methods_of_family(query):
        return [row for row in rows if row.method in related]
    exact = [row for row in rows if wanted in (_plain(row.method), _plain(row.printed))]
    if not wanted or not exact:
        names = {_plain(name): name for row in rows for name in (row.printed, row.method) if name}
        holding = sorted((name for name in names if wanted and wanted in name), key=lambda name: name.index(wanted))
        close = (holding or difflib.get_close_matches(wanted, names, n=3, cutoff=0.5))[:4]
        known = sorted({row.method or row.printed for row in rows}, key=lambda name: (name.casefold(), name))
        hint = f"did you mean {' or '.join(names[name] for name in close)}?" if close else f"known: {', '.join(known)}"
        raise ValueError(f"no published numbers for {query!r}; {hint}")
    methods = {row.method for row in exact} - {""}
    return [row for row in rows if row.method in methods or row in exact]


def methods_of_family(query: str) -> tuple[str, ...]:
    """Return the methods of a family; empty if there is no such family."""
    return next((names for family, names in FAMILIES.items() if _plain(family) == _plain(query)), ())


def _plain(name: str) -> str:
    """Remove case, spaces and hyphens, but not `*`, `†` and `+`, which distinguish methods."""
    return re.sub(r"[\s_-]", "", name.casefold())


def copies(rows: Iterable[PublishedRow]) -> list[list[PublishedRow]]:
    """Group rows of one architecture that print the same accuracies: most tables copy their baselines."""
    groups: dict[tuple[object, ...], list[PublishedRow]] = {}
    for row in rows:
        accuracies = row.tasks or tuple((name, number.accuracy) for name, number in row.numbers.items())
        groups.setdefault((row.source.suite, row.source.architecture, accuracies), []).append(row)
    return list(groups.values())


def published_range(rows: Iterable[PublishedRow], name: str) -> PublishedRange | None:
    """Return the range of a printed task or mean; None if no row prints it without a flag."""
    return _range((row, n.accuracy) for row in rows if (n := row.numbers.get(name)) and not n.flag)


def recomputed_range(rows: Iterable[PublishedRow], mean: str) -> PublishedRange | None:
    """Return the range of a mean recomputed from tasks, excluding rows with a flagged task."""
    return _range((row, row.recomputed[mean]) for row in rows if row.recomputed and not _has_flagged_task(row))


def _range(found: Iterable[tuple[PublishedRow, float]]) -> PublishedRange | None:
    rows, accuracies = zip(*found, strict=True) if (found := list(found)) else ((), ())
    selected = [row.test_selected for row in rows]
    counts = len(rows), selected.count("yes"), selected.count("no")
    return PublishedRange(min(accuracies), max(accuracies), *counts) if rows else None


def _has_flagged_task(row: PublishedRow) -> bool:
    return any(number.flag for name, number in row.numbers.items() if not name.startswith("mean_"))
