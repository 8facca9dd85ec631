"""Mean accuracy of every method on each group of tasks, with 95 % intervals over seeds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..leaderboards import Leaderboard
from ..stats import TIE, Interval
from ..tables import cut
from .style import BLUE, GREY, INK, LINE, add_axes, add_text, page_width, short, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 0.5
"""Minimum width in inches of the panel of a group."""

Intervals = Mapping[tuple[str, str], Interval | str]
"""(label of a row, group) -> interval of the group's mean over seeds, or the reason for having none."""


def draw(leaderboard: Leaderboard, intervals: Intervals, part: slice = slice(None)) -> "Figure | None":
    """Draw a panel per group for some rows; None for fewer than two groups or rows."""
    if not leaderboard.groups or len(leaderboard.rows) < 2:
        return None
    from matplotlib.figure import Figure

    names = [short(row["label"]) for row in leaderboard.rows[part]]
    left, top, bottom, gap = 0.1 + text_width(names), 0.5, 0.4, 0.09  # inches
    width = page_width(left + 0.1 + (PANEL + gap) * len(leaderboard.groups))
    height = LINE * len(names)
    figure = Figure(figsize=(width, top + bottom + height))
    panel = (width - left - 0.1 + gap) / len(leaderboard.groups) - gap
    for number, group in enumerate(leaderboard.groups):
        axes = add_axes(figure, left + number * (panel + gap), bottom, panel, height)
        _draw_group(axes, leaderboard.rows, group, part, intervals)
        axes.set_yticks(range(len(names)), names if number == 0 else [""] * len(names), fontsize=6)
    has_intervals = any(isinstance(interval, Interval) for interval in intervals.values())
    label = "Group mean of accuracy (%); filled: best" + ("; bars: 95 % over seeds" if has_intervals else "")
    middle = min((left + width - 0.1) / 2, width - 0.06 - text_width([label]) / 2)  # of the panels if there is room
    add_text(figure, middle, 0.06, label, ha="center", va="bottom")
    write_title(figure, leaderboard)
    return figure


def _draw_group(axes: "Axes", rows: Sequence[dict[str, Any]], group: str, part: slice, intervals: Intervals) -> None:
    """Draw a dot and a bar per method of a part, the best dot of all rows filled; gaps stay empty."""
    from matplotlib.ticker import MaxNLocator

    best = max((mean for row in rows if (mean := row[f"group_{group}"]) is not None), default=0.0)
    means = np.array([np.nan if (mean := row[f"group_{group}"]) is None else mean for row in rows[part]])
    lines = range(len(means))
    for line, row in enumerate(rows[part]):
        interval = intervals.get((row["label"], group))
        if isinstance(interval, Interval):
            ends = [100 * interval.low, 100 * interval.high]
            axes.plot(ends, [line, line], color=INK, lw=0.9, solid_capstyle="butt")
    known = np.flatnonzero(~np.isnan(means))
    fills, edges = ([BLUE if best - mean < TIE else other for mean in means[known]] for other in ("white", INK))
    axes.scatter(100 * means[known], known, s=11, c=fills, edgecolors=edges, linewidths=0.7, zorder=3)
    axes.hlines(lines, 0, 1, transform=axes.get_yaxis_transform(), color=GREY, lw=0.25, alpha=0.6)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 5, 10], min_n_ticks=2))
    axes.set_title(cut(group, 14), fontsize=6, pad=3)
    axes.tick_params(axis="y", length=0, pad=2)
    axes.tick_params(axis="x", labelsize=6, pad=2)
    axes.spines["left"].set_visible(False)
