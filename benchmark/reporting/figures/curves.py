"""Learning curves: training loss after each epoch, one panel per task.

The best methods have a line each; the range of all others is a band.  The horizontal axis is the percentage of the
training, since recipes may train a linear probe for more epochs.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...storage.schema import Run
from ..leaderboards import Leaderboard
from ..markup import task_name
from ..tables import cut
from .style import BLUE, COLUMN, GREY, add_axes, add_text, short, text_width, write_legend, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = (("-", BLUE, 1.1), ("--", "#D55E00", 1.0), (":", "#000000", 1.2), ("-.", "#CC79A7", 1.0))
"""Style, colour (Okabe and Ito's) and width of the lines, best row first."""
FRACTIONS = np.linspace(0.0, 1.0, 41)
"""Fractions of the training at which curves are drawn; a panel is less than an inch wide."""
MIN_LOSS = 1e-4
"""Lower limit of drawn losses, since the axis is logarithmic."""
PANELS_PER_ROW = 3

Losses = Mapping[tuple[str, str], np.ndarray]
"""(label of a row, label of a task) -> loss at each of FRACTIONS, mean over runs."""


def losses(leaderboard: Leaderboard, runs: Iterable[Run]) -> Losses:
    """Average the runs' loss curves; runs without a curve of at least two epochs are skipped."""
    rows = {row["identity"]: row["label"] for row in leaderboard.rows}
    tasks = {task.task_id: task.label for task in leaderboard.tasks}
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for run in runs:
        if run.loss_curve and len(run.loss_curve) > 1:
            ends = np.arange(1, len(run.loss_curve) + 1) / len(run.loss_curve)
            row = rows[leaderboard.id.row_identity(run)]
            found[row, tasks[run.task_id]].append(np.interp(FRACTIONS, ends, run.loss_curve, left=np.nan))
    return {place: np.mean(np.sort(curves, axis=0), axis=0) for place, curves in found.items()}


def draw(leaderboard: Leaderboard, losses: Losses) -> "Figure | None":
    """Draw the curves; None if there are none."""
    suite, drawn = leaderboard.id.suite, {name for _, name in losses}
    tasks = {task.label: task_name(suite, task) for task in leaderboard.tasks if task.label in drawn}
    if not tasks:
        return None
    from matplotlib.figure import Figure

    with_curve = {label for label, _ in losses}
    labels = [row["label"] for row in leaderboard.rows if row["label"] in with_curve]
    named, others = labels[: len(LINES)], labels[len(LINES) :]
    entries = [short(label) for label in named] + ["all others"] * bool(others)
    legend_columns = max(1, min(len(entries), int((COLUMN - 0.1) / (0.4 + text_width(entries)))))
    legend_rows, rows = -(-len(entries) // legend_columns), -(-len(tasks) // PANELS_PER_ROW)
    columns = min(PANELS_PER_ROW, len(tasks))
    top, bottom, panel, left, gap = 0.5 + 0.12 * legend_rows, 0.34, 0.72, 0.45, 0.34  # inches
    height = top + bottom + rows * panel + (rows - 1) * gap
    width = (COLUMN - left - 0.1 - (columns - 1) * gap) / columns
    figure = Figure(figsize=(COLUMN, height))
    for number, (task, name) in enumerate(tasks.items()):
        row, column = divmod(number, PANELS_PER_ROW)
        axes = add_axes(figure, left + column * (width + gap), bottom + (rows - 1 - row) * (panel + gap), width, panel)
        axes.set_title(cut(name, 18), fontsize=6, pad=2)
        _draw_task(axes, *([losses.get((label, task)) for label in part] for part in (named, others)))
    _write_legend(figure, entries, legend_columns)
    write_title(figure, leaderboard)
    middle = bottom + (height - bottom - top) / 2
    add_text(figure, 0.06, middle, "Training loss", rotation=90, ha="left", va="center")
    add_text(figure, COLUMN / 2, 0.05, "Part of the training (%)", ha="center")
    return figure


def _draw_task(axes: "Axes", named: Sequence[np.ndarray | None], others: Sequence[np.ndarray | None]) -> None:
    from matplotlib.ticker import NullLocator

    band = [np.maximum(curve, MIN_LOSS) for curve in others if curve is not None]
    if band:
        axes.fill_between(100 * FRACTIONS, np.min(band, axis=0), np.max(band, axis=0), color=GREY, alpha=0.3, lw=0)
    for curve, (line, colour, width) in zip(named, LINES, strict=False):
        if curve is not None:
            axes.plot(100 * FRACTIONS, np.maximum(curve, MIN_LOSS), ls=line, color=colour, lw=width)
    axes.set_yscale("log")
    ticks = _log_ticks(*axes.get_ylim())
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set(xlim=(0, 100), xticks=(0, 50, 100))
    axes.tick_params(labelsize=5.5, pad=1.5)


def _log_ticks(low: float, high: float) -> list[float]:
    """Return up to five round numbers between the limits, at least two if possible."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) > 1:
            break
    return ticks[:: -(-len(ticks) // 5)] if ticks else []


def _write_legend(figure: "Figure", entries: Sequence[str], columns: int) -> None:
    """Write the legend below the title; an entry beyond the named rows is the band of all others."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines = [Line2D([], [], ls=line, color=colour, lw=width) for line, colour, width in LINES[: len(entries)]]
    handles = [*lines, Patch(color=GREY, alpha=0.3, lw=0)][: len(entries)]
    write_legend(figure, handles, entries, columns, 0.31, handlelength=2.4)
