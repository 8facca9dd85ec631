"""Figures for papers, one module each; a figure is skipped if a leaderboard has too little data for it.

Drawing is a pure function of the report's data.  matplotlib is imported only when something is drawn.
"""

from collections.abc import Sequence

from ...storage.schema import Run
from ..costs import COLUMNS
from ..drawing import FORMATS, REPORT, Drawing
from ..leaderboards import Leaderboard
from ..shift import ShiftTable
from ..significance import Significance
from . import cost, curves, groups, heat_map, ranks, shift
from .style import image_files, pages, paper_style

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
    drawing: Drawing = REPORT,
) -> dict[str, bytes]:
    """Draw the figures of a leaderboard and its runs; returns file name -> content.

    Further parts of a long list have the names `tasks-2`, `tasks-3`, ...

    axes: cost columns that accuracy is also drawn against.  shifted: the table of shifted tests.
    """
    ranking, parts = significance.ranking, pages(len(leaderboard.rows))
    ranked = [] if isinstance(ranking, str) else pages(len(ranking.methods))
    with paper_style():
        drawn = {
            "accuracy_vs_params": [cost.against_params(leaderboard, drawing)],
            "accuracy_vs_time": [cost.against_time(leaderboard, drawing)],
            "tasks": [heat_map.draw(leaderboard, part) for part in parts],
            "groups": [groups.draw(leaderboard, significance.group_intervals, part) for part in parts],
            "ranks": [ranks.draw(leaderboard, ranking, part) for part in ranked],
            "curves": [curves.draw(leaderboard, curves.losses(leaderboard, runs))],
            "shift": [shift.draw(shifted)],
            **{f"accuracy_vs_{axis}": [cost.against_column(leaderboard, axis, drawing)] for axis in axes},
        }
        parts_by_name = {
            f"{name}{f'-{number}' if number > 1 else ''}": figure
            for name, made in drawn.items()
            for number, figure in enumerate(made, start=1)
        }
        return image_files(parts_by_name, drawing)


def link_text(name: str) -> str:
    """Return the text of a link to a figure of that name."""
    base, _, number = name.partition("-")
    return (FIGURES | COST_FIGURES)[base] + (f", part {number}" if number else "")


def is_figure(file: str) -> bool:
    """Return whether a report may have written this file name."""
    name, _, extension = file.partition(".")
    base, _, number = name.partition("-")
    return extension in FORMATS and base in FIGURES | COST_FIGURES and (not number or number.isdigit())
