"""Tables of shifted tests: accuracy of each method on corrupted images and further test lists, beside the clean one.

The clean accuracy is that of the images that are corrupted.  Numbers are means over tasks, with Student's interval over
seeds.
"""

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import msgspec

from ...datasets.corruptions import CORRUPTIONS
from ..escaping import csv_text, markdown
from ..storage.schema import Run
from ..storage.shifts import Outcome, Shift, accuracies
from .leaderboards import Leaderboard
from .markup import markdown_table
from .stats import LEAST_SEEDS, Interval, over_seeds
from .tables import DASH, TERMINAL_WIDTH, heading, percent
from .text_table import text_table

TRAINED, WISE_FT = "trained", "WiSE-FT"
SHARED = ("clean", "corrupted", "gap", *CORRUPTIONS)
"""Values that every task has; further lists are named `<task>: <list>`."""
NOTE = (
    "Accuracy in percent, mean over tasks, ± half its 95 % interval over seeds (Student, from "
    f"{LEAST_SEEDS} seeds). corrupted: mean over {len(CORRUPTIONS)} corruptions at 5 severities. gap: clean minus "
    "corrupted. alpha: weight of the trained weights, chosen on val. Nothing is chosen on these tests."
)


@dataclass(frozen=True)
class Value:
    """A mean over tasks and seeds, in [0, 1]."""

    mean: float
    interval: Interval | None
    """Over seeds; None with fewer than three."""


@dataclass(frozen=True)
class ShiftRow:
    """A method, as trained or with weights interpolated by WiSE-FT."""

    label: str
    spec: str
    model: str
    """`trained` or `WiSE-FT`."""
    seeds: int
    alpha: float | None
    """Mean alpha of WiSE-FT."""
    values: dict[str, Value]


@dataclass(frozen=True)
class ShiftTable:
    """The shifted tests of a leaderboard."""

    entry: Leaderboard
    tasks: tuple[str, ...]
    """Tasks with shift records.  Methods that lack one of them have no row."""
    lists: tuple[str, ...]
    rows: tuple[ShiftRow, ...]
    """Methods in the order of the leaderboard, each as trained and then with WiSE-FT."""
    outdated: tuple[str, ...]
    """A message for each record with outcomes of other images than a newer record has; these are left out."""


def shift_table(entry: Leaderboard, runs: Iterable[Run], shifts: Mapping[str, Shift]) -> ShiftTable | None:
    """Return the shifted tests of a leaderboard; None if no method has all of them.

    Records of an earlier repetition of a run are left out, and those that lack a corruption.  Methods are compared on
    the same images: those of the newest record of the task that has the test.

    Args:
        shifts: Run ID -> record.
    """
    found: dict[Any, dict[str, dict[int, Shift]]] = defaultdict(lambda: defaultdict(dict))
    labels = {task.task_id: task.label for task in entry.tasks}
    outdated = []
    for run, record, has_all in _of_newest_images(runs, shifts):
        if not has_all:
            outdated.append(
                f"shift/{run.run_id}.json ({run.method_spec} on {run.spec.task.name}, seed {run.spec.seed}) has "
                "results of other images than a newer one; they are left out: run `vtab-peft shift` again"
            )
        if _is_complete(record.tests):
            found[entry.id.row_identity(run)][labels[run.task_id]][run.spec.seed] = record
    tasks = tuple(label for label in labels.values() if any(label in by_task for by_task in found.values()))
    rows = [row for entry_row in entry.rows for row in _rows(entry_row, found[entry_row["identity"]], tasks)]
    lists = dict.fromkeys(name for row in rows for name in row.values if name not in SHARED)
    return ShiftTable(entry, tasks, tuple(lists), tuple(rows), tuple(outdated)) if rows else None


def _of_newest_images(runs: Iterable[Run], shifts: Mapping[str, Shift]) -> list[tuple[Run, Shift, bool]]:
    """Return the runs with the outcomes that have the newest images of each test, and if that is all of them."""
    pairs = [(run, record) for run in runs if (record := shifts.get(run.run_id))]
    pairs = [(run, record) for run, record in pairs if record.predictions_sha256 == run.predictions_sha256]
    pairs.sort(key=lambda pair: (pair[1].provenance.get("created", ""), pair[0].run_id))
    newest: dict[Any, str] = {}
    for run, record in pairs:
        for test in (*record.tests, *(record.wise_ft.tests if record.wise_ft else ())):
            newest[run.task_id, test.name, test.severity] = test.data
    found = []
    for run, record in pairs:
        trained, mixed = (
            [test for test in tests if newest[run.task_id, test.name, test.severity] == test.data]
            for tests in (record.tests, record.wise_ft.tests if record.wise_ft else [])
        )
        wise = record.wise_ft and msgspec.structs.replace(record.wise_ft, tests=mixed)
        kept = msgspec.structs.replace(record, tests=trained, wise_ft=wise)
        found.append((run, kept, kept == record))
    return found


def _is_complete(tests: Iterable[Outcome]) -> bool:
    return {test.name for test in tests} >= {"clean", *CORRUPTIONS}


def _rows(row: dict[str, Any], by_task: Mapping[str, Mapping[int, Shift]], tasks: Sequence[str]) -> list[ShiftRow]:
    """Return the rows of a method, of the seeds that all tasks have."""
    seeds = sorted(set.intersection(*(set(by_task.get(task, ())) for task in tasks))) if tasks else []
    if not seeds:
        return []
    names = {"label": row["label"], "spec": row["spec"], "seeds": len(seeds)}
    records = [[by_task[task][seed] for task in tasks] for seed in seeds]
    trained = [[record.tests for record in of_seed] for of_seed in records]
    rows = [ShiftRow(**names, model=TRAINED, alpha=None, values=_values(tasks, trained))]
    mixed = [[r.wise_ft for r in of_seed if r.wise_ft and _is_complete(r.wise_ft.tests)] for of_seed in records]
    if all(len(of_seed) == len(tasks) for of_seed in mixed):
        alpha = fmean(wise.alpha for of_seed in mixed for wise in of_seed)
        values = _values(tasks, [[wise.tests for wise in of_seed] for of_seed in mixed])
        rows.append(ShiftRow(**names, model=WISE_FT, alpha=alpha, values=values))
    return rows


def _values(tasks: Sequence[str], by_seed: Sequence[Sequence[Sequence[Outcome]]]) -> dict[str, Value]:
    """Return the value of each test; by_seed: [seeds, tasks] outcomes."""
    found: dict[str, list[float]] = defaultdict(list)
    for of_seed in by_seed:
        known = [accuracies(tests) for tests in of_seed]
        for name in SHARED:
            found[name].append(fmean(of_task[name] for of_task in known))
        for task, of_task in zip(tasks, known, strict=True):
            for name in of_task.keys() - set(SHARED):
                found[f"{task}: {name}"].append(of_task[name])
    complete = {name: values for name, values in sorted(found.items()) if len(values) == len(by_seed)}
    return {
        name: Value(fmean(values), over_seeds(values) if len(values) >= LEAST_SEEDS else None)
        for name, values in complete.items()
    }


def texts(table: ShiftTable) -> dict[str, bytes]:
    """Return file name -> content of the table as CSV and Markdown."""
    return {"shift.csv": to_csv(table).encode(), "shift.md": to_markdown(table).encode()}


def to_csv(table: ShiftTable) -> str:
    """Return `shift.csv`: one line per method, model and test, in percent."""
    head = ["method", "spec", "model", "alpha", "seeds", "test", "accuracy", "low", "high"]
    lines = [
        [
            *(row.label, row.spec, row.model, "" if row.alpha is None else f"{row.alpha:.2f}", str(row.seeds), name),
            percent(value.mean, 2),
            *((percent(value.interval.low, 2), percent(value.interval.high, 2)) if value.interval else ("", "")),
        ]
        for row in table.rows
        for name in (*SHARED, *table.lists)
        if (value := row.values.get(name))
    ]
    return csv_text([head, *lines])


def to_markdown(table: ShiftTable) -> str:
    """Return `shift.md`."""
    title, conditions = map(markdown, heading(table.entry))
    head, *rows = cells(table, (*SHARED, *table.lists))
    body = [[markdown(cell) for cell in row] for row in rows]
    grid = markdown_table([markdown(name) for name in head], body, "ll" + "r" * (len(head) - 2))
    tasks = markdown(f"Tasks: {', '.join(table.tasks)}.")
    return "\n".join([f"**Shifted tests · {title}**  ", f"{conditions}.", "", grid, "", f"{NOTE} {tasks}", ""])


def to_terminal(table: ShiftTable) -> str:
    """Return a plain table for the terminal, without the single corruptions."""
    head, *rows = cells(table, ("clean", "corrupted", "gap", *table.lists))
    text = text_table(head, rows, "ll" + "r" * (len(head) - 2))
    return f"Shifted tests · {heading(table.entry)[0]}\n\n{text}\n\n{textwrap.fill(NOTE, TERMINAL_WIDTH)}\n"


def cells(table: ShiftTable, names: Sequence[str]) -> list[list[str]]:
    """Return the header and the rows of a table with these tests, as plain text."""
    rows = [
        [row.label, row.model + ("" if row.alpha is None else f", alpha {row.alpha:.2f}")]
        + [_cell(row.values.get(name)) for name in names]
        for row in table.rows
    ]
    return [["method", "model", *(name.replace("_", " ") for name in names)], *rows]


def _cell(value: Value | None) -> str:
    if value is None:
        return DASH
    half = value.interval and f" ± {percent(value.interval.high - value.mean)}"
    return percent(value.mean) + (half or "")
