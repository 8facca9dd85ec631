"""Leaderboards as text: the columns of a printed table, `leaderboard.csv`, and the terminal table.

Accuracies are in percent here.  markup.py formats the same columns as Markdown and LaTeX.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import copysign, inf
from typing import Any, Literal

from tabulate import tabulate

from ..escaping import csv_text, one_line
from .costs import COLUMNS as COST_COLUMNS
from .leaderboards import Leaderboard, TaskColumn, distinct
from .stats import Interval

DASH = "—"
TERMINAL_WIDTH = 100
MOST_TASKS = 8
"""With more tasks than this, the terminal table shows only the means of the groups."""
BEST_TEST_EPOCH = "best test epoch"
TIE = 1e-9
"""Added before rounding, so that decimal ties round up despite binary fractions; the page uses the same value."""
ROUNDING = 1e-7
"""Points below which a difference is rounding: 100 times `stats.TIE`; the page uses the same value."""
GAPS = "not run, failed, or a mean that lacks a task"


def percent(value: float, decimals: int = 1) -> str:
    """Format a fraction as percent."""
    return fixed(100 * value, decimals)


def fixed(value: float, decimals: int = 1) -> str:
    """Format a number with fixed decimals, rounding ties up."""
    return f"{value + TIE:z.{decimals}f}"


def signed(points: float) -> str:
    """Format a difference with its sign and one decimal, or the first digit that is not 0; equal numbers have 0.0."""
    if abs(points) < ROUNDING:
        return "0.0"
    text = f"{points + copysign(TIE, points):+.1f}"
    return text if float(text) else f"{points:+.1g}"


def ends(interval: Interval) -> str:
    """Format the bounds of a difference of fractions in points."""
    return f"{signed(100 * interval.low)} to {signed(100 * interval.high)}"


def to_csv(leaderboard: Leaderboard) -> str:
    """Return `leaderboard.csv`: the columns of `Leaderboard.columns`; gaps are empty."""
    rows = ([_csv_cell(name, row[name]) for name in leaderboard.columns] for row in leaderboard.rows)
    return csv_text([leaderboard.columns, *rows])


def _csv_cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name.startswith(("accuracy_", "group_", "mean_", "std_", "oracle_")):
        return percent(value, 2)
    if name in ("seconds", "peak_memory_mb"):
        return f"{value:.1f}"
    if name in COST_COLUMNS:
        return f"{value:.4g}"
    return f"{value:g}" if name == "lr" else one_line(str(value))


Role = Literal["fact", "spec", "task", "group", "mean", "best_test_epoch"]


@dataclass(frozen=True)
class Column:
    """A column of a printed table."""

    name: str
    cells: list[str]
    role: Role = "fact"
    group: str = ""
    """Task group of a task column, else empty."""
    ranks: list[float] | None = None
    """Printed values as numbers, higher is better; None if the column has no best value."""


def columns(leaderboard: Leaderboard, task_names: Sequence[str], mean_decimals: int) -> list[Column]:
    """Return all columns of a full table in order; cells are plain text, `DASH` for a gap."""
    rows = leaderboard.rows

    def text(name: str, format_value: Callable[[Any], str]) -> list[str]:
        return [DASH if row[name] is None else format_value(row[name]) for row in rows]

    def accuracy(name: str, source: str, role: Role, group: str = "") -> Column:
        decimals = 1 if source.startswith("accuracy_") else mean_decimals
        cells = text(source, lambda value: percent(value, decimals))
        return Column(name, cells, role, group, [-inf if cell == DASH else float(cell) for cell in cells])

    is_single = len(leaderboard.tasks) == 1  # then its column has the mean and the deviation
    mean = accuracy(task_names[0] if is_single else f"mean of {len(leaderboard.tasks)}", "mean_tasks", "mean")
    stds = text("std_over_seeds", lambda value: f" ± {percent(value, mean_decimals)}")
    mean_and_std = [cell + (std if std != DASH else "") for cell, std in zip(mean.cells, stds, strict=True)]
    has_mean_of_groups = any(row.get("mean_groups") is not None for row in rows)
    best_epoch = accuracy(BEST_TEST_EPOCH, "oracle_mean_tasks", "best_test_epoch")
    return [
        Column("#", text("rank", str)),
        Column("method", [row["label"] for row in rows]),
        Column("spec", text("spec", one_line), "spec"),
        Column("lr", [_rate(row) for row in rows]),
        Column("params", text("trainable_params", count)),
        Column("+ head", text("trainable_params_with_head", count)),
        *([Column("seeds", text("seeds", str))] if len({row["seeds"] for row in rows}) > 1 else []),
        *(
            accuracy(name, f"accuracy_{task.label}", "task", task.group)
            for name, task in zip(task_names, leaderboard.tasks, strict=True)
            if not is_single
        ),
        *(accuracy(group, f"group_{group}", "group") for group in leaderboard.groups if has_groups(leaderboard)),
        Column(mean.name, mean_and_std, "mean", ranks=mean.ranks),
        *([accuracy(f"mean of {len(leaderboard.common)}", "mean_common", "mean")] if leaderboard.common else []),
        *([accuracy("mean of groups", "mean_groups", "mean")] if has_mean_of_groups else []),
        *([replace(best_epoch, ranks=None)] if leaderboard.has_oracle else []),
    ]


def has_groups(leaderboard: Leaderboard) -> bool:
    """Return whether the means of groups differ from the accuracies of tasks: some group has two tasks."""
    return len(leaderboard.tasks) > len(leaderboard.groups) > 0


def marks(column: Column) -> list[str]:
    """Return `best`, `second` or an empty string for each cell; all tied cells are marked."""
    ranks = column.ranks or []
    top = sorted({rank for rank in ranks if rank > -inf}, reverse=True)
    names = dict(zip(top, ("best", "second"), strict=False))
    return [names.get(rank, "") for rank in ranks] or [""] * len(column.cells)


def _rate(row: Mapping[str, Any]) -> str:
    if row["configurations"]:
        return f"best of {row['configurations']}"
    return "per task" if row["lr"] is None else learning_rate(row["lr"])


def learning_rate(value: float) -> str:
    """Format a learning rate: `1e-3`, `2.5e-4`."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"


def count(number: float) -> str:
    """Format a number of parameters with at most three digits: `0`, `812`, `36.9k`, `85.8M`."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            value = number / size
            return fixed(value, 2 if value < 9.995 else 1 if value < 99.95 else 0) + unit
    return fixed(number, 0)


def heading(leaderboard: Leaderboard) -> list[str]:
    """Return two lines of plain text above a table: what it contains and the conditions."""
    facts = leaderboard.id
    tuning = f"recipe {facts.recipe}, {leaderboard.tuning}"
    weights = f"weights {facts.backbone_sha256[:6]}"
    data = f"data: {facts.provenance}{', procedural images' if facts.procedural else ''}"
    size = f"{facts.image_size} px, {facts.interpolation}, {facts.normalisation}"
    lines = [
        (facts.suite, facts.backbone, tuning, leaderboard.epochs, leaderboard.seeds),
        (weights, "test images evaluated once, after the last epoch", data, size),
    ]
    return [one_line(" · ".join(line)) for line in lines]


def unit(leaderboard: Leaderboard) -> str:
    """Return what the numbers of a table are."""
    has_std = any(row["std_over_seeds"] is not None for row in leaderboard.rows)
    return "Accuracy in percent" + (", mean ± standard deviation over seeds" if has_std else "")


def common_note(leaderboard: Leaderboard) -> str:
    """Explain the mean over the common tasks; empty without such a column."""
    return f" Mean of {len(leaderboard.common)}: the tasks that all rows have." if leaderboard.common else ""


def origin_notes(leaderboard: Leaderboard) -> str:
    """Return the notes on decoders and plug-in files as sentences; empty without any."""
    return "".join(f" {note[0].upper()}{note[1:]}." for note in leaderboard.origins)


def best_epoch_note(leaderboard: Leaderboard) -> str:
    """Explain the column of the best test epoch; empty without such a column."""
    if not leaderboard.has_oracle:
        return ""
    return f" {BEST_TEST_EPOCH.capitalize()}: mean accuracy of the epoch chosen on the test images; it ranks nothing."


def to_terminal(leaderboard: Leaderboard) -> str:
    """Return a plain table of at most `TERMINAL_WIDTH` columns for up to 7 tasks and 10 methods."""
    many = len(leaderboard.tasks) > MOST_TASKS and (has_groups(leaderboard) or not leaderboard.groups)
    hidden = ("spec", "best_test_epoch", "task" if many else "group")
    table, names = "", [task.label for task in leaderboard.tasks]
    for method_width, task_width in ((40, 12), (30, 9), (24, 8), (20, 7), (18, 6), (16, 5), (14, 5), (11, 5)):
        names = short_names(leaderboard.tasks, task_width)
        shown = [column for column in columns(leaderboard, names, mean_decimals=1) if column.role not in hidden]
        table = _plain(shown, method_width)
        if max(map(len, table.splitlines())) <= TERMINAL_WIDTH:
            break
    pairs = zip((name.replace("\n", " ") for name in names), leaderboard.tasks, strict=True)
    short = "" if many else ", ".join(f"{name} = {task.label}" for name, task in pairs if name != task.label)
    notes = f"{unit(leaderboard)}. {DASH}: {GAPS}.{common_note(leaderboard)}{origin_notes(leaderboard)}"
    below = wrapped([notes, f"Tasks: {short}." if short else ""])
    return "\n".join([*wrapped(heading(leaderboard)), "", table, "", *below]) + "\n"


def _plain(table: Sequence[Column], method_width: int) -> str:
    heads = [column.name.replace(" of ", "\nof ").replace("+ ", "+\n") for column in table]
    cells = [cut_names(column.cells, method_width) if column.name == "method" else column.cells for column in table]
    rows = [heads, *zip(*cells, strict=True)]  # tabulate would pad columns beyond the width of a header
    align = ["right", "left", *["right"] * (len(table) - 2)]
    body = tabulate(rows, tablefmt="plain", colalign=align, rowalign="bottom", disable_numparse=True).split("\n")
    depth = 1 + max(head.count("\n") for head in heads)
    return "\n".join([*body[:depth], "-" * max(map(len, body)), *body[depth:]])


def wrapped(texts: Iterable[str]) -> list[str]:
    """Return the lines of texts, broken at `TERMINAL_WIDTH` columns; none for an empty text."""
    return [line for text in texts for line in textwrap.wrap(text, TERMINAL_WIDTH, break_on_hyphens=False)]


def short_names(tasks: Sequence[TaskColumn], width: int) -> list[str]:
    """Break task names into lines of at most `width` characters; all results are distinct.

    For example, `dsprites_loc` becomes `dsprit` and `loc`.
    """
    stacked = [_stacked(task.label, width) for task in tasks]
    return distinct(stacked, [f"{name}\n{number}" for number, name in enumerate(stacked, start=1)])


def _stacked(label: str, width: int) -> str:
    if len(label) <= width:
        return label
    words = [word for word in label.split("_") if word]
    parts = [re.findall(r"\d+|\D+", word) if len(word) > width else [word] for word in words]
    return "\n".join(part[:width] for word in parts for part in word) or label[:width]


def cut(text: str, width: int) -> str:
    """Shorten to `width` characters with an ellipsis in the middle, since names of variants differ at their ends."""
    tail = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - tail]}…{text[-tail:]}"


def cut_names(names: Sequence[str], width: int) -> list[str]:
    """Shorten names to `width` characters; those that become equal get a number at the end."""
    numbered = [f"{cut(name, width - 1 - len(str(number)))} {number}" for number, name in enumerate(names, start=1)]
    return distinct([cut(name, width) for name in names], numbered)
