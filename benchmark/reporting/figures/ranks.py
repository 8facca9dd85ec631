"""The rank diagram: average ranks over tasks, and which are too close to the best to be told apart.

Demsar's diagram (JMLR 2006) on its side: a line per method stays legible with sixty of them.
"""

from typing import TYPE_CHECKING

from ..leaderboards import Leaderboard
from ..stats import Ranking
from ..tables import cut
from .style import COLUMN, FRONT, INK, LINE, LONGEST, OTHERS, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(board: Leaderboard, ranking: Ranking | str) -> "Figure | None":
    """None where the tasks support no ranking."""
    if isinstance(ranking, str):
        return None
    from matplotlib.figure import Figure

    names = [cut(name, LONGEST) for name in ranking.methods]
    places = list(range(len(names)))
    left, top, bottom = 0.1 + text_width(names), 0.32, 0.4  # inches
    high = top + bottom + LINE * len(names)
    figure = Figure(figsize=(COLUMN, high))
    size = ((COLUMN - left - 0.1) / COLUMN, LINE * len(names) / high)
    axes = figure.add_axes((left / COLUMN, bottom / high, *size))
    best = ranking.average_ranks[0]
    end = best + ranking.critical_difference
    axes.axvspan(best, end, color=FRONT, alpha=0.12, lw=0)
    axes.hlines(places, 1, ranking.average_ranks, color=OTHERS, lw=0.4)
    near = [rank <= end for rank in ranking.average_ranks]
    fills = [FRONT if close else "white" for close in near]
    edges = [FRONT if close else INK for close in near]
    axes.scatter(ranking.average_ranks, places, s=14, c=fills, edgecolors=edges, linewidths=0.8, zorder=3)
    axes.set(xlim=(1 - 0.03 * len(names), 1.03 * len(names)), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(places, names, fontsize=6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(
        f"Average rank over {len(board.tasks)} tasks; band: critical difference to the best", x=1, ha="right"
    )
    axes.xaxis.label.set_fontsize(6)
    write_title(figure, board)
    return figure
