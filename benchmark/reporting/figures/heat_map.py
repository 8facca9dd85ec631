"""Heat map of every method on every task; darker cells are closer to the best of their task."""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..leaderboards import Leaderboard
from ..markup import task_name
from ..tables import DASH, fixed
from .style import INK, add_axes, page_width, short, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEST = "#6db3dd"
"""A light blue on which black digits are legible."""
CELL = 0.25
"""Width in inches of an accuracy."""
WORST = 20
"""Points below the best of a task at which the colour scale ends (our choice)."""


def draw(leaderboard: Leaderboard, part: slice = slice(None)) -> "Figure | None":
    """Draw some rows of the heat map; None for a single row, which would be the best of every task."""
    if len(leaderboard.rows) < 2:
        return None
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    tasks = [short(task_name(leaderboard.id.suite, task)) for task in leaderboard.tasks]
    labels = [short(row["label"]) for row in leaderboard.rows][part]
    cells = [[row[f"accuracy_{task.label}"] for task in leaderboard.tasks] for row in leaderboard.rows]
    accuracy = 100 * np.array(cells, dtype=float)  # None becomes NaN
    below = np.nanmax(accuracy, axis=0) - accuracy
    printed = np.vectorize(lambda value: float(fixed(value)))(accuracy)
    best = printed == np.nanmax(printed, axis=0)  # bold as in the tables: equal numbers look equal
    lowest = np.nanmax(below)
    worst = min(WORST, 5 * max(1, int(np.ceil(lowest / 5))))
    accuracy, below, best = accuracy[part], below[part], best[part]
    # Inches; task names are rotated by 60 degrees.
    left, right = 0.1 + text_width(labels), max(0.06, 0.5 * text_width(tasks[-1:]) - 0.05)
    bottom, height, top = 0.42, 0.155 * len(labels), 0.38 + 0.87 * text_width(tasks)
    width = page_width(left + right + CELL * len(tasks))
    figure = Figure(figsize=(width, bottom + height + top))
    axes = add_axes(figure, left, bottom, width - left - right, height)
    colours = LinearSegmentedColormap.from_list("below", [BEST, "#ffffff"])
    image = axes.imshow(below, cmap=colours, vmin=0, vmax=worst, aspect="auto", interpolation="nearest")
    _write_cells(axes, accuracy, best)
    for index, (task, following) in enumerate(pairwise(leaderboard.tasks)):
        if task.group != following.group:
            axes.axvline(index + 0.5, color="white", lw=2)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(tasks)), tasks, rotation=60, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0, labelsize=6, pad=2, top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    write_title(figure, leaderboard)
    bar = add_axes(figure, min(left, width - 1.75), 0.29, 1.6, 0.06)
    figure.colorbar(image, cax=bar, orientation="horizontal", ticks=range(0, worst + 1, 5))
    bar.tick_params(labelsize=6, length=2, pad=1)
    beyond = " and more" if lowest > worst else ""
    bar.set_xlabel(f"0 to {worst}{beyond} points below the task's best", fontsize=6, labelpad=1)
    return figure


def _write_cells(axes: "Axes", accuracy: np.ndarray, best: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(accuracy):
        text = DASH if np.isnan(value) else fixed(value)
        weight = "bold" if best[row, column] else "normal"
        axes.text(column, row, text, ha="center", va="center_baseline", fontsize=5.5, color=INK, fontweight=weight)
