"""Gain of ensembles over the best single method: the mean over tasks with its interval, and each task."""

from typing import TYPE_CHECKING

from ..ensembles import STRATEGIES, Ensembles
from ..ensembles_text import sizes_of
from ..leaderboards import Leaderboard
from .style import BLUE, COLUMN, GREY, INK, LINE, add_axes, add_text, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(found: Ensembles, entry: Leaderboard) -> "Figure":
    """Draw a line per strategy; grey dots are tasks."""
    from matplotlib.figure import Figure

    names, sizes = [name for name in STRATEGIES if name != "single"], sizes_of(found)
    labels = [f"{STRATEGIES[name]} ({sizes[name]})" for name in names]
    left, top, bottom = 0.1 + text_width(labels), 0.45, 0.42  # inches
    height = 1.4 * LINE * len(names)
    figure = Figure(figsize=(COLUMN, top + height + bottom))
    axes = add_axes(figure, left, bottom, COLUMN - left - 0.1, height)
    for line, name in enumerate(names):
        gain = found.mean.gain[name]
        tasks = [100 * one.gain[name].estimate for one in found.by_task]
        axes.scatter(tasks, [line] * len(tasks), s=9, color=GREY, alpha=0.6, linewidths=0)
        axes.plot([100 * gain.low, 100 * gain.high], [line, line], color=INK, lw=1.1, solid_capstyle="butt")
        axes.scatter([100 * gain.estimate], [line], s=14, color=BLUE, zorder=3)
    axes.axvline(0, color=GREY, lw=0.6)
    axes.set_yticks(range(len(names)), labels, fontsize=6)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, pad=2)
    axes.tick_params(axis="x", labelsize=6, pad=2)
    axes.spines["left"].set_visible(False)
    text = "Gain over the best method on val (points); bars: 95 %, dots: tasks"
    add_text(figure, COLUMN - 0.06, 0.06, text, ha="right", va="bottom", fontsize=5.5)
    write_title(figure, entry)
    return figure
