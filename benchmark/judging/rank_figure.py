"""The rank diagram: average ranks over tasks, and which are too close to the best to be told apart.

Demsar's diagram (JMLR 2006) on its side: a line per method stays legible with twenty of them.
"""

from typing import TYPE_CHECKING

from .boards import Leaderboard
from .figures import COLUMN, FRONT, INK, LONGEST, OTHERS, drawn, text_width, title
from .stats import Ranking
from .tables import cut

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def ranks(board: Leaderboard, ranking: Ranking | str) -> dict[str, bytes]:
    """svg and png; nothing where the tasks support no ranking."""
    return {} if isinstance(ranking, str) else drawn(lambda: _draw(board, ranking))


def _draw(board: Leaderboard, ranking: Ranking) -> "Figure":
    from matplotlib.figure import Figure

    names = [cut(name, LONGEST) for name in ranking.methods]
    places = list(range(len(names)))
    left, top, bottom = 0.1 + text_width(names), 0.32, 0.4  # inches
    high = top + bottom + 0.14 * len(names)
    figure = Figure(figsize=(COLUMN, high))
    size = ((COLUMN - left - 0.1) / COLUMN, 0.14 * len(names) / high)
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
    figure.text(0.06 / COLUMN, 1 - 0.05 / high, title(board), va="top", fontsize=6.5, linespacing=1.3)
    return figure
