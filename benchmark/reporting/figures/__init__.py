"""Figures for papers, one module each; a figure is skipped if a leaderboard has too little data for it.

Drawing is a pure function of the report's data.  matplotlib is imported only when something is drawn.
"""

from collections.abc import Sequence

from ...storage.schema import Run
from ..costs import COLUMNS
from ..leaderboards import Leaderboard
from ..shift import ShiftTable
from ..significance import Significance
from . import cost, curves, groups, heat_map, ranks, shift
from .style import images, paper_style

FIGURES = {
    "accuracy_vs_params": "accuracy against trainable parameters",
    "accuracy_vs_time": "accuracy against training time",
    "tasks": "every task",
    "groups": "groups",
    "ranks": "ranks",
    "curves": "learning curves",
    "shift": "shifted tests",
}
"""File name without extension -> text of links to it, in the order of the report."""

COST_FIGURES = {f"accuracy_vs_{name}": f"accuracy against {name.replace('_', ' ')}" for name in COLUMNS}
"""The same for figures that are drawn on request."""


def figures(
    leaderboard: Leaderboard,
    runs: Sequence[Run],
    significance: Significance,
    axes: Sequence[str] = (),
    shifted: ShiftTable | None = None,
) -> dict[str, bytes]:
    """Draw the figures of a leaderboard and its runs; returns file name -> content, SVG and PNG.

    axes: cost columns that accuracy is also drawn against.  shifted: the table of shifted tests.
    """
    with paper_style():
        drawn = {
            "accuracy_vs_params": cost.against_params(leaderboard),
            "accuracy_vs_time": cost.against_time(leaderboard),
            "tasks": heat_map.draw(leaderboard),
            "groups": groups.draw(leaderboard, significance.group_intervals),
            "ranks": ranks.draw(leaderboard, significance.ranking),
            "curves": curves.draw(leaderboard, curves.losses(leaderboard, runs)),
            "shift": shift.draw(shifted),
            **{f"accuracy_vs_{axis}": cost.against_column(leaderboard, axis) for axis in axes},
        }
        return {
            f"{name}.{extension}": data
            for name in drawn
            if (figure := drawn[name]) is not None
            for extension, data in images(figure).items()
        }
