"""Rank diagram: average ranks over tasks, and the critical difference to the best.

This is the diagram of Demsar (JMLR 2006) with one line per method, which stays legible with sixty methods.
"""

from typing import TYPE_CHECKING

from ..leaderboards import Leaderboard
from ..stats import Ranking
from .style import BLUE, COLUMN, GREY, INK, LINE, add_axes, short, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(leaderboard: Leaderboard, ranking: Ranking | str, part: slice = slice(None)) -> "Figure | None":
    """Draw some lines of the diagram, best first; None if there is no ranking."""
    if isinstance(ranking, str):
        return None
    from matplotlib.figure import Figure

    names, ranks = [short(name) for name in ranking.methods[part]], ranking.average_ranks[part]
    lines, methods = range(len(names)), len(ranking.methods)
    left, top, bottom = 0.1 + text_width(names), 0.32, 0.4  # inches
    height = LINE * len(names)
    figure = Figure(figsize=(COLUMN, top + bottom + height))
    axes = add_axes(figure, left, bottom, COLUMN - left - 0.1, height)
    best = ranking.average_ranks[0]
    end = best + ranking.critical_difference
    axes.axvspan(best, end, color=BLUE, alpha=0.12, lw=0)
    axes.hlines(lines, 1, ranks, color=GREY, lw=0.4)
    fills = [BLUE if rank <= end else "white" for rank in ranks]
    edges = [BLUE if rank <= end else INK for rank in ranks]
    axes.scatter(ranks, lines, s=14, c=fills, edgecolors=edges, linewidths=0.8, zorder=3)
    axes.set(xlim=(1 - 0.03 * methods, 1.03 * methods), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(lines, names, fontsize=6)
    axes.tick_params(axis="y", length=0)
    label = f"Average rank over {len(leaderboard.tasks)} tasks; band: critical difference to the best"
    axes.set_xlabel(label, x=1, ha="right", fontsize=6)
    write_title(figure, leaderboard)
    return figure
