"""Every method on every task, darker where it is closer to the best of that task."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..leaderboards import Leaderboard
from ..tables import DASH, cut, fixed
from .style import COLUMN, INK, LONGEST, PAGE, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEST = "#6db3dd"
"""A lighter blue (ours), on which black figures are easy to read."""
CELL = 0.25
"""Inches that an accuracy needs."""
WORST = 20
"""Points below a task's best where the colours end (ours: beyond that, how far hardly matters)."""


def draw(board: Leaderboard) -> "Figure | None":
    """None for one row, which would be the best everywhere."""
    if len(board.rows) < 2:
        return None
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    names = [cut(task.label, LONGEST) for task in board.tasks]
    labels = [cut(row["label"], LONGEST) for row in board.rows]
    accuracy = _percent([[row[f"accuracy_{task.label}"] for task in board.tasks] for row in board.rows])
    below = np.nanmax(accuracy, axis=0) - accuracy
    worst = min(WORST, 5 * max(1, int(np.ceil(np.nanmax(below) / 5))))
    # Inches; task names lean by 60 degrees.
    left, right = 0.1 + text_width(labels), max(0.06, 0.5 * text_width(names[-1:]) - 0.05)
    bottom, height, top = 0.42, 0.155 * len(labels), 0.38 + 0.87 * text_width(names)
    needed = left + right + CELL * len(names)
    wide = next((width for width in (COLUMN, PAGE) if needed <= width), needed)
    high, width = bottom + height + top, wide - left - right
    figure = Figure(figsize=(wide, high))
    axes = figure.add_axes((left / wide, bottom / high, width / wide, height / high))
    colours = LinearSegmentedColormap.from_list("below", [BEST, "#ffffff"])
    image = axes.imshow(below, cmap=colours, vmin=0, vmax=worst, aspect="auto", interpolation="nearest")
    _write_cells(axes, accuracy, below == 0)
    for index, (task, following) in enumerate(pairwise(board.tasks)):
        if task.group != following.group:
            axes.axvline(index + 0.5, color="white", lw=2)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0, labelsize=6, pad=2, top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    write_title(figure, board)
    bar = figure.add_axes((min(left, wide - 1.75) / wide, 0.29 / high, 1.6 / wide, 0.06 / high))
    figure.colorbar(image, cax=bar, orientation="horizontal", ticks=range(0, worst + 1, 5))
    bar.tick_params(labelsize=6, length=2, pad=1)
    beyond = " and more" if np.nanmax(below) > worst else ""
    bar.set_xlabel(f"0 to {worst}{beyond} points below the task's best", fontsize=6, labelpad=1)
    return figure


def _write_cells(axes: "Axes", accuracy: np.ndarray, best: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(accuracy):
        text = DASH if np.isnan(value) else fixed(value)
        weight = "bold" if best[row, column] else "normal"
        axes.text(column, row, text, ha="center", va="center_baseline", fontsize=5.5, color=INK, fontweight=weight)


def _percent(cells: list[list[Any]]) -> np.ndarray:
    return np.array([[np.nan if cell is None else 100 * cell for cell in row] for row in cells])
