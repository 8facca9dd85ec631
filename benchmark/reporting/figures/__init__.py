"""Figures for papers, one module each; a figure that would say nothing about a board is not drawn.

Each is a pure function of what the report knows; matplotlib is imported only when something is drawn.
"""

import pandas as pd

from ..leaderboards import Leaderboard
from ..significance import Significance
from . import cost, curves, groups, heat_map, ranks
from .style import images, own_style

FIGURES = {
    "accuracy_vs_params": "accuracy against trainable parameters",
    "accuracy_vs_time": "accuracy against training time",
    "tasks": "every task",
    "groups": "groups",
    "ranks": "ranks",
    "curves": "learning curves",
}
"""Name of the files, without .svg and .png -> what links to them say, in the order of the report."""


def figures(board: Leaderboard, runs: pd.DataFrame, found: Significance) -> dict[str, bytes]:
    """File name -> content, svg and png of each figure that says something; `runs` are the board's."""
    with own_style():
        drawn = {
            "accuracy_vs_params": cost.against_params(board),
            "accuracy_vs_time": cost.against_time(board),
            "tasks": heat_map.draw(board),
            "groups": groups.draw(board, found.group_intervals),
            "ranks": ranks.draw(board, found.ranking),
            "curves": curves.draw(board, curves.losses(board, runs)),
        }
        return {
            f"{name}.{kind}": data
            for name in FIGURES
            if (figure := drawn[name]) is not None
            for kind, data in images(figure).items()
        }
