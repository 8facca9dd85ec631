"""Learning curves: training loss after each epoch, a panel per task; the best methods by name, all others as a band.

Epochs are counted in parts of the whole training, because a linear probe may train for more of them than the rest.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..leaderboards import Leaderboard
from ..tables import cut
from .style import COLUMN, FRONT, INK, LONGEST, OTHERS, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = (("-", FRONT, 1.1), ("--", "#D55E00", 1.0), (":", "#000000", 1.2), ("-.", "#CC79A7", 1.0))
"""Line, colour (Okabe and Ito's) and width of the rows that have a name, best first."""
PROGRESS = np.linspace(0.0, 1.0, 41)
"""Parts of the training that a panel shows (ours: a panel is less than an inch wide)."""
LOWEST = 1e-4
"""Losses below it are drawn there; the axis is logarithmic."""
ACROSS = 3
"""Panels in a line."""

Losses = Mapping[tuple[str, str], np.ndarray]
"""(row, task), by their labels -> [len(PROGRESS)] mean over runs."""


def losses(board: Leaderboard, runs: pd.DataFrame) -> Losses:
    """From the runs' records; nothing where a record has no curve."""
    rows = {row["identity"]: row["label"] for row in board.rows}
    tasks = {(task.name, task.version, task.data): task.label for task in board.tasks}
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for run in runs.to_dict("records"):
        curve = json.loads(Path(run["path"]).read_text(encoding="utf-8"))["result"].get("loss_curve")
        if curve:
            row = rows[board.board.row_of({str(name): value for name, value in run.items()})]
            task = tasks[run["task"], run["task_version"], run["data"]]
            ends = np.arange(1, len(curve) + 1) / len(curve)
            found[row, task].append(np.interp(PROGRESS, ends, curve, left=np.nan))
    return {cell: np.mean(np.sort(curves, axis=0), axis=0) for cell, curves in found.items()}


def draw(board: Leaderboard, losses: Losses) -> "Figure | None":
    """None where there is no curve."""
    tasks = [task.label for task in board.tasks if any(task.label == name for _, name in losses)]
    if not tasks:
        return None
    from matplotlib.figure import Figure

    names = [row["label"] for row in board.rows][: len(NAMED)]
    others = [row["label"] for row in board.rows][len(NAMED) :]
    lines, across = -(-len(tasks) // ACROSS), min(ACROSS, len(tasks))
    legend = _legend_rows([cut(name, LONGEST) for name in names], bool(others))
    top, bottom, panel, left, gap = 0.5 + 0.12 * len(legend), 0.34, 0.72, 0.45, 0.34  # inches
    high = top + bottom + lines * panel + (lines - 1) * gap
    figure = Figure(figsize=(COLUMN, high))
    width = (COLUMN - left - 0.1 - (across - 1) * gap) / across
    for place, task in enumerate(tasks):
        line, column = divmod(place, ACROSS)
        low = bottom + (lines - 1 - line) * (panel + gap)
        corner = ((left + column * (width + gap)) / COLUMN, low / high, width / COLUMN, panel / high)
        _draw_task(figure.add_axes(corner), cut(task, 18), _of(names, task, losses), _of(others, task, losses))
    _write_legend(figure, legend, high)
    write_title(figure, board)
    middle = (bottom + (high - bottom - top) / 2) / high
    figure.text(0.06 / COLUMN, middle, "Training loss", rotation=90, ha="left", va="center", fontsize=6)
    figure.text(0.5, 0.05 / high, "Part of the training (%)", ha="center", fontsize=6)
    return figure


def _of(names: Sequence[str], task: str, losses: Losses) -> list[np.ndarray | None]:
    curves = [losses.get((name, task)) for name in names]
    return [None if curve is None else np.maximum(curve, LOWEST) for curve in curves]


def _draw_task(axes: "Axes", task: str, named: list[np.ndarray | None], others: list[np.ndarray | None]) -> None:
    from matplotlib.ticker import NullLocator

    band = [curve for curve in others if curve is not None]
    if band:
        axes.fill_between(100 * PROGRESS, np.min(band, axis=0), np.max(band, axis=0), color=OTHERS, alpha=0.3, lw=0)
    for curve, (dashes, colour, width) in zip(named, NAMED, strict=False):
        if curve is not None:
            axes.plot(100 * PROGRESS, curve, ls=dashes, color=colour, lw=width)
    axes.set_yscale("log")
    ticks = _log_ticks(*axes.get_ylim())
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set(xlim=(0, 100), xticks=(0, 50, 100))
    axes.set_title(task, fontsize=6, pad=2)
    axes.tick_params(labelsize=5.5, pad=1.5)


def _log_ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers within, or as near to that as powers of ten go."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) > 1:
            break
    return ticks[:: -(-len(ticks) // 5)] if ticks else []


def _legend_rows(names: list[str], others: bool) -> list[list[tuple[str, Any]]]:
    """Entries (text, style) that stand beside each other, in lines that fit a column."""
    entries: list[tuple[str, Any]] = [*zip(names, NAMED, strict=False), *([("all others", None)] if others else [])]
    rows: list[list[tuple[str, Any]]] = [[]]
    for entry in entries:
        if rows[-1] and _legend_width([*rows[-1], entry]) > COLUMN - 0.1:
            rows.append([])
        rows[-1].append(entry)
    return rows


def _legend_width(entries: list[tuple[str, Any]]) -> float:
    return sum(0.4 + text_width([text]) for text, _ in entries)


def _write_legend(figure: "Figure", rows: list[list[tuple[str, Any]]], high: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    for place, entries in enumerate(rows):
        x, y = 0.06, high - 0.37 - 0.12 * place
        for text, style in entries:
            if style is None:
                patch = Rectangle((x / COLUMN, (y - 0.03) / high), 0.2 / COLUMN, 0.06 / high, color=OTHERS, alpha=0.3)
                figure.add_artist(patch)
            else:
                dashes, colour, width = style
                line = Line2D([x / COLUMN, (x + 0.2) / COLUMN], [y / high] * 2, ls=dashes, color=colour, lw=width)
                figure.add_artist(line)
            figure.text((x + 0.25) / COLUMN, y / high, text, fontsize=6, va="center_baseline", color=INK)
            x += 0.4 + text_width([text])
