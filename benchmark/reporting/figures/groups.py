"""Every method's mean on each group of tasks, with its interval over seeds where there are enough of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..leaderboards import Leaderboard
from ..stats import Interval
from ..tables import cut
from .style import COLUMN, FRONT, INK, LINE, LONGEST, OTHERS, PAGE, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 0.5
"""Inches that a group's panel needs."""


def draw(board: Leaderboard, intervals: Mapping[tuple[str, str], Interval | str]) -> "Figure | None":
    """A panel per group.  intervals: (row, group) -> of the group's mean over seeds.

    None where the board has one group, or one row.
    """
    if not board.groups or len(board.rows) < 2:
        return None
    from matplotlib.figure import Figure

    names = [cut(row["label"], LONGEST) for row in board.rows]
    left, top, bottom, gap = 0.1 + text_width(names), 0.5, 0.4, 0.09  # inches
    needed = left + 0.1 + (PANEL + gap) * len(board.groups)
    wide = next((width for width in (COLUMN, PAGE) if needed <= width), needed)
    high = top + bottom + LINE * len(names)
    figure = Figure(figsize=(wide, high))
    width = (wide - left - 0.1 + gap) / len(board.groups) - gap
    for place, group in enumerate(board.groups):
        across = (left + place * (width + gap)) / wide
        axes = figure.add_axes((across, bottom / high, width / wide, LINE * len(names) / high))
        _draw_group(axes, board, group, intervals)
        axes.set_yticks(range(len(names)), names if place == 0 else [""] * len(names), fontsize=6)
    shown = any(isinstance(found, Interval) for found in intervals.values())
    note = "; bars: 95 % over seeds" if shown else ""
    label = f"Group mean of accuracy (%); filled: best{note}"
    figure.text(1 - 0.06 / wide, 0.06 / high, label, ha="right", va="bottom", fontsize=6)
    write_title(figure, board)
    return figure


def _draw_group(
    axes: "Axes", board: Leaderboard, group: str, intervals: Mapping[tuple[str, str], Interval | str]
) -> None:
    """Dots, the best filled, and bars; gaps stay empty."""
    from matplotlib.ticker import MaxNLocator

    known = [
        (place, 100 * row[f"group_{group}"])
        for place, row in enumerate(board.rows)
        if row[f"group_{group}"] is not None
    ]
    best = max((mean for _, mean in known), default=0.0)
    for place, row in enumerate(board.rows):
        found = intervals.get((row["label"], group))
        if isinstance(found, Interval):
            axes.plot([100 * found.low, 100 * found.high], [place, place], color=INK, lw=0.9, solid_capstyle="butt")
    fills = [FRONT if mean == best else "white" for _, mean in known]
    edges = [FRONT if mean == best else INK for _, mean in known]
    where, means = np.array([place for place, _ in known]), np.array([mean for _, mean in known])
    axes.scatter(means, where, s=11, c=fills, edgecolors=edges, linewidths=0.7, zorder=3)
    axes.hlines(range(len(board.rows)), 0, 1, transform=axes.get_yaxis_transform(), color=OTHERS, lw=0.25, alpha=0.6)
    axes.set_ylim(len(board.rows) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 5, 10], min_n_ticks=2))
    axes.set_title(cut(group, 14), fontsize=6, pad=3)
    axes.tick_params(axis="y", length=0, pad=2)
    axes.tick_params(axis="x", labelsize=6, pad=2)
    axes.spines["left"].set_visible(False)
