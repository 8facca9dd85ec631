"""Accuracy of each method on corrupted images and on the same images clean, as trained and with WiSE-FT's weights."""

from typing import TYPE_CHECKING

from ..shift import TRAINED, ShiftRow, ShiftTable
from .style import BLUE, COLUMN, GREY, INK, LINE, add_axes, add_text, short, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"clean": INK, "corrupted": BLUE}


def draw(table: ShiftTable | None) -> "Figure | None":
    """Draw a line per method with 95 % intervals over seeds, the most robust first; None without methods."""
    if table is None:
        return None
    from matplotlib.figure import Figure

    mixed = {(row.label, row.spec): row for row in table.rows if row.model != TRAINED}
    trained = [row for row in table.rows if row.model == TRAINED]
    trained.sort(key=lambda row: -row.values["corrupted"].mean)
    names = [short(row.label) for row in trained]
    left, top, bottom = 0.1 + text_width(names), 0.5, 0.42  # inches
    line = 1.5 * LINE if mixed else LINE
    figure = Figure(figsize=(COLUMN, top + bottom + line * len(names)))
    axes = add_axes(figure, left, bottom, COLUMN - left - 0.1, line * len(names))
    for place, row in enumerate(trained):
        other = mixed.get((row.label, row.spec))
        _draw_row(axes, row, place - (0.17 if other else 0), filled=True)
        if other:
            _draw_row(axes, other, place + 0.2, filled=False)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.05)
    axes.tick_params(axis="y", length=0, pad=2)
    axes.tick_params(axis="x", labelsize=6, pad=2)
    axes.spines["left"].set_visible(False)
    has_intervals = any(row.values["clean"].interval for row in trained)
    bars = "; bars: 95 % over seeds" if has_intervals else ""
    over = f"mean of {len(table.tasks)} tasks" if len(table.tasks) > 1 else "".join(table.tasks)
    add_text(figure, COLUMN - 0.06, 0.06, f"Accuracy (%), {over}{bars}", ha="right", va="bottom")
    write_title(figure, table.entry)
    height = figure.get_size_inches()[1]
    marks = [("clean", "●", INK), ("corrupted", "●", BLUE), *([("WiSE-FT", "○", INK)] if mixed else [])]
    for number, (name, mark, colour) in enumerate(marks):
        add_text(figure, left + 0.75 * number, height - 0.46, f"{mark} {name}", color=colour)
    return figure


def _draw_row(axes: "Axes", row: ShiftRow, place: float, filled: bool) -> None:
    """Draw the accuracies of a row, joined by a line, with their intervals."""
    means = [100 * row.values[name].mean for name in COLOURS]
    axes.plot(means, [place, place], color=GREY, lw=0.5, zorder=1)
    for name, colour in COLOURS.items():
        value = row.values[name]
        if value.interval:
            ends = [100 * value.interval.low, 100 * value.interval.high]
            axes.plot(ends, [place, place], color=colour, lw=1, alpha=0.5, solid_capstyle="butt", zorder=2)
        face = colour if filled else "white"
        axes.scatter([100 * value.mean], [place], s=10, color=face, edgecolors=colour, linewidths=0.7, zorder=3)
