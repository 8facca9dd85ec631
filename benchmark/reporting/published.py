"""Numbers that papers print (results/published): loaded, checked, queried; no torch.

A number is as good as what is known about it, so every row carries its source: which weights, which epoch, which mean,
head or not.  Kinds of means are never mixed; where a row has every task, its means are recomputed from them.
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
from .boards import VTAB_GROUPS

FOLDER = Path(__file__).resolve().parents[2] / "results" / "published"
MEANS = {"vtab1k": ("mean_19", "mean_groups"), "fgvc": ("mean_5",)}
"""The kinds of means over a whole suite; 2 to 5 points lie between the two of VTAB-1k."""


@dataclass(frozen=True)
class Source:
    """A printed table; results/published/README.md describes the fields."""

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
    seeds: str
    mean: str
    head: str
    note: str

    @property
    def architecture(self) -> str:
        """In words: rows of different architectures are never compared."""
        return re.split("[,;]", self.pretrained)[0]


@dataclass(frozen=True)
class Number:
    """One printed number."""

    accuracy: float
    """Percent."""
    params_m: float | None
    flag: str
    """What is known to be wrong with it; such a number is shown, but stretches no range."""


@dataclass(frozen=True)
class Row:
    """A method's row of a printed table."""

    source: Source
    printed: str
    """What the table calls the method."""
    method: str
    """Our registry's name of it, empty where there is none."""
    params_m: float | None
    note: str
    numbers: dict[str, Number]
    """Task or mean -> number, in the order of the source."""

    @property
    def tasks(self) -> tuple[float, ...]:
        """The accuracies per task in the suite's order; empty unless all are there."""
        names = list(suite_tasks(self.source.suite))
        return tuple(self.numbers[name].accuracy for name in names) if set(names) <= self.numbers.keys() else ()

    @property
    def recomputed(self) -> dict[str, float]:
        """The means that the printed tasks give; empty unless all tasks are there."""
        if not self.tasks:
            return {}
        if self.source.suite == "fgvc":
            return {"mean_5": fmean(self.tasks)}
        rows = suite_tasks("vtab1k").values()
        groups = {
            f"mean_{group}": fmean(a for a, task in zip(self.tasks, rows, strict=True) if task.group == group)
            for group in VTAB_GROUPS
        }
        return {**groups, "mean_19": fmean(self.tasks), "mean_groups": fmean(groups.values())}

    @property
    def flagged(self) -> bool:
        return any(number.flag for number in self.numbers.values())


@dataclass(frozen=True)
class Spread:
    """How far sources are apart on a task or a mean."""

    low: float
    high: float
    rows: int
    """Printed rows that have the number, copies of one another included."""


@cache
def load(folder: Path = FOLDER) -> tuple[Row, ...]:
    """All rows, in the order of the files.

    Raises:
        ValueError: a file is missing, or names a source or row that another does not have.
    """
    try:
        sources = {line["source"]: _source(line) for line in _lines(folder / "sources.csv")}
        rows = {
            (line["source"], line["printed"]): Row(
                sources[line["source"]], line["printed"], line["method"], _number(line["params_m"]), line["note"], {}
            )
            for line in _lines(folder / "rows.csv")
        }
        for line in _lines(folder / "numbers.csv"):
            number = Number(float(line["accuracy"]), _number(line["params_m"]), line["flag"])
            rows[line["source"], line["printed"]].numbers[line["task"]] = number
    except FileNotFoundError as error:
        raise ValueError(
            f"published numbers: {error.filename} is missing; restore {folder} from the repository"
        ) from None
    except KeyError as error:
        raise ValueError(f"published numbers: {folder} names {error} and does not describe it") from None
    return tuple(rows.values())


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _source(line: dict[str, str]) -> Source:
    facts: dict[str, str] = {name: text for name, text in line.items() if name != "backbones"}
    return Source(**facts, backbones=tuple(line["backbones"].split()))


def _number(text: str) -> float | None:
    return float(text) if text else None


def find(query: str, rows: Sequence[Row]) -> list[Row]:
    """Rows of a method, by our name for it or as printed; a printed name brings all rows of the same method.

    Raises:
        ValueError: nothing is published under this name; near matches are named.
    """
    wanted = _plain(query)
    exact = [row for row in rows if wanted in (_plain(row.method), _plain(row.printed))]
    if not wanted or not exact:
        names = {_plain(name): name for row in rows for name in (row.printed, row.method) if name}
        holding = sorted((name for name in names if wanted and wanted in name), key=lambda name: name.index(wanted))
        close = (holding or difflib.get_close_matches(wanted, names, n=3, cutoff=0.5))[:4]
        hint = f"; did you mean {' or '.join(names[name] for name in close)}?" if close else "."
        known = ", ".join(sorted({row.method or row.printed for row in rows}, key=str.casefold))
        raise ValueError(f"no published numbers for {query!r}{hint} There are some for: {known}")
    methods = {row.method for row in exact} - {""}
    return [row for row in rows if row.method in methods or row in exact]


def _plain(name: str) -> str:
    """Case, spaces and hyphens do not matter; `*`, `†` and `+` do."""
    return re.sub(r"[\s_-]", "", name.casefold())


def copies(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one architecture in bundles that print the same accuracies: most tables copy their baselines."""
    bundles: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        same = row.tasks or tuple((name, number.accuracy) for name, number in row.numbers.items())
        bundles.setdefault((row.source.suite, row.source.architecture, same), []).append(row)
    return list(bundles.values())


def spread(rows: Iterable[Row], name: str) -> Spread | None:
    """Of what the rows print for a task or mean; None where none prints it without a flag."""
    found = [number.accuracy for row in rows if (number := row.numbers.get(name)) and not number.flag]
    return Spread(min(found), max(found), len(found)) if found else None


def recomputed_spread(rows: Iterable[Row], mean: str) -> Spread | None:
    """The same of a mean recomputed from tasks; rows with a flagged task are left out."""
    found = [means[mean] for row in rows if (means := row.recomputed) and not _has_wrong_task(row)]
    return Spread(min(found), max(found), len(found)) if found else None


def _has_wrong_task(row: Row) -> bool:
    return any(number.flag for name, number in row.numbers.items() if not name.startswith("mean_"))
