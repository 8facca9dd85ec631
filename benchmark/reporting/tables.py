"""Leaderboards as text: the columns of a printed table, `leaderboard.csv`, and the table for the terminal.

Accuracies are in percent here.  markup.py dresses the same columns as Markdown and LaTeX.
"""

import csv
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

from tabulate import tabulate

from .boards import one_line
from .leaderboards import Leaderboard, TaskColumn, distinct

DASH = "—"
TERMINAL_WIDTH = 100
MOST_TASKS = 8
"""With more tasks than this the terminal table shows the groups' means only."""
ORACLE = "mean of each run's best epoch on the test images, found by looking at them; it ranks nothing"
TIE = 1e-9
"""What lies half-way between two printed numbers goes up, whatever binary makes of it; page.js has the same."""
GAPS = "not run or failed, or a mean that lacks one of its tasks"


def percent(value: float, decimals: int = 1) -> str:
    """A fraction in percent."""
    return fixed(100 * value, decimals)


def fixed(value: float, decimals: int = 1) -> str:
    """A number as it is printed."""
    return f"{value + TIE:.{decimals}f}"


def to_csv(leaderboard: Leaderboard) -> str:
    """`leaderboard.csv`: the columns of `Leaderboard.columns`, gaps empty, one line per row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(leaderboard.columns)
    for row in leaderboard.rows:
        writer.writerow([_csv_cell(name, row[name]) for name in leaderboard.columns])
    return text.getvalue()


def _csv_cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name.startswith(("accuracy_", "group_", "mean_", "std_", "oracle_")):
        return percent(value, 2)
    if name in ("seconds", "peak_memory_mb"):
        return f"{value:.1f}"
    return f"{value:g}" if name == "lr" else one_line(str(value))


Role = Literal["fact", "spec", "task", "group", "mean", "oracle"]


@dataclass(frozen=True)
class Column:
    """A column of a printed table."""

    name: str
    cells: list[str]
    role: Role = "fact"
    group: str = ""
    """Of a task's column."""
    ranks: list[float] | None = None
    """What is printed, as numbers (higher is better), where a column has a best."""


def columns(board: Leaderboard, task_names: Sequence[str], mean_decimals: int) -> list[Column]:
    """Everything a full table shows, in order; cells are plain text, `DASH` where there is none."""
    rows = board.rows

    def text(name: str, form: Callable[[Any], str]) -> list[str]:
        return [DASH if row[name] is None else form(row[name]) for row in rows]

    def accuracy(name: str, source: str, role: Role, group: str = "") -> Column:
        decimals = 1 if role == "task" else mean_decimals
        cells = text(source, lambda value: percent(value, decimals))
        return Column(name, cells, role, group, [-inf if cell == DASH else float(cell) for cell in cells])

    mean = accuracy(f"mean of {len(board.tasks)}", "mean_tasks", "mean")
    spread = text("std_over_seeds", lambda value: f" ± {percent(value, mean_decimals)}")
    with_spread = [cell + (std if std != DASH else "") for cell, std in zip(mean.cells, spread, strict=True)]
    of_groups = any(row.get("mean_groups") is not None for row in rows)
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
            for name, task in zip(task_names, board.tasks, strict=True)
        ),
        *(accuracy(group, f"group_{group}", "group") for group in board.groups),
        Column(mean.name, with_spread, "mean", ranks=mean.ranks),
        *([accuracy(f"mean of {len(board.common)}", "mean_common", "mean")] if board.common else []),
        *([accuracy("mean of groups", "mean_groups", "mean")] if of_groups else []),
        *([replace(accuracy("oracle", "oracle_mean_tasks", "oracle"), ranks=None)] if board.has_oracle else []),
    ]


def marks(column: Column) -> list[str]:
    """`best`, `second` or nothing for each cell; all cells that tie are marked."""
    ranks = column.ranks or []
    top = sorted({rank for rank in ranks if rank > -inf}, reverse=True)
    names = dict(zip(top, ("best", "second"), strict=False))
    return [names.get(rank, "") for rank in ranks] or [""] * len(column.cells)


def _rate(row: Mapping[str, Any]) -> str:
    if row["configurations"]:
        return f"best of {row['configurations']}"
    return "per task" if row["lr"] is None else learning_rate(row["lr"])


def learning_rate(value: float) -> str:
    """`1e-3`, `2.5e-4`: short, and the same in every table."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"


def count(number: float) -> str:
    """Parameters as `0`, `812`, `36.9k`, `85.8M`: three digits at most."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            value = number / size
            return fixed(value, 2 if value < 9.995 else 1 if value < 99.95 else 0) + unit
    return fixed(number, 0)


def heading(board: Leaderboard) -> list[str]:
    """What a table is, in plain text: two lines that stand above it."""
    facts = board.board
    return [
        one_line(f"{facts.suite} · {facts.backbone} · recipe {facts.recipe}, {board.tuning} · {board.seeds}"),
        one_line(
            f"weights {facts.backbone_sha256[:6]} · test images evaluated once, after the last epoch · "
            f"data: {facts.provenance} · {facts.image_size} px, {facts.interpolation}, {facts.normalisation}"
        ),
    ]


def unit(board: Leaderboard) -> str:
    """What the numbers are."""
    spread = any(row["std_over_seeds"] is not None for row in board.rows)
    return "Accuracy in percent" + (", mean ± standard deviation over seeds" if spread else "")


def common_note(board: Leaderboard) -> str:
    """What the mean over fewer tasks is; nothing where there is none."""
    return f" Mean of {len(board.common)}: of the tasks that all rows have." if board.common else ""


def oracle_note(board: Leaderboard) -> str:
    """What the column of that name is; nothing where there is none."""
    return f" Oracle: {ORACLE}." if board.has_oracle else ""


def to_terminal(board: Leaderboard) -> str:
    """A plain table that fits `TERMINAL_WIDTH` columns for up to 7 tasks and 10 methods; wider ones lose the tasks."""
    many = len(board.tasks) > MOST_TASKS
    hidden = ("spec", "oracle", "task" if many else "group")
    table, names = "", [task.label for task in board.tasks]
    for method_width, task_width in ((40, 12), (30, 9), (24, 8), (20, 7), (18, 6), (16, 5), (14, 5), (11, 5)):
        names = short_names(board.tasks, task_width)
        parts = [part for part in columns(board, names, mean_decimals=1) if part.role not in hidden]
        table = _plain(parts, method_width)
        if max(map(len, table.splitlines())) <= TERMINAL_WIDTH:
            break
    shown = zip((name.replace("\n", " ") for name in names), board.tasks, strict=True)
    short = "" if many else ", ".join(f"{name} = {task.label}" for name, task in shown if name != task.label)
    notes = f"{unit(board)}. {DASH}: {GAPS}.{common_note(board)}"
    lines = [*heading(board), "", table, "", notes, *([f"Tasks: {short}."] if short else [])]
    wrapped = [part for line in lines for part in (line.split("\n") if line == table else _wrap(line))]
    return "\n".join(wrapped) + "\n"


def _plain(parts: Sequence[Column], method_width: int) -> str:
    heads = [part.name.replace(" of ", "\nof ").replace("+ ", "+\n") for part in parts]
    cells = [cut_apart(part.cells, method_width) if part.name == "method" else part.cells for part in parts]
    # As a row of the body: tabulate pads columns beyond the width of their heads.
    rows = [heads, *zip(*cells, strict=True)]
    align = ["right", "left", *["right"] * (len(parts) - 2)]
    body = tabulate(rows, tablefmt="plain", colalign=align, rowalign="bottom", disable_numparse=True).split("\n")
    depth = 1 + max(head.count("\n") for head in heads)
    return "\n".join([*body[:depth], "-" * max(map(len, body)), *body[depth:]])


def _wrap(line: str) -> list[str]:
    return textwrap.wrap(line, TERMINAL_WIDTH, break_on_hyphens=False) or [""]


def short_names(tasks: Sequence[TaskColumn], width: int) -> list[str]:
    """Task names on lines of at most `width` characters, no two alike: `dsprites_loc` becomes `dsprit`, `loc`."""
    stacked = [_stacked(task.label, width) for task in tasks]
    return distinct(stacked, [f"{name}\n{place}" for place, name in enumerate(stacked, start=1)])


def _stacked(label: str, width: int) -> str:
    if len(label) <= width:
        return label
    words = [word for word in label.split("_") if word]
    parts = [re.findall(r"\d+|\D+", word) if len(word) > width else [word] for word in words]
    return "\n".join(part[:width] for word in parts for part in word) or label[:width]


def cut(text: str, width: int) -> str:
    """At most `width` characters, with an ellipsis in the middle: names of variants differ at their ends."""
    tail = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - tail]}…{text[-tail:]}"


def cut_apart(names: Sequence[str], width: int) -> list[str]:
    """Names of at most `width` characters; those that would look alike get their place at the end."""
    numbered = [f"{cut(name, width - 1 - len(str(place)))} {place}" for place, name in enumerate(names, start=1)]
    return distinct([cut(name, width) for name in names], numbered)
