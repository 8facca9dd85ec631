"""Figures of an analysis: angles against what they are by chance, and how large and of what rank the updates are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..reporting.boards import one_line
from ..reporting.figures.style import COLUMN, FRONT, INK, LONGEST, OTHERS, images, own_style, text_width
from ..reporting.tables import cut
from .angles import Group, density

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("pretrained q", "pretrained v")
"""Sites of the pretrained weights that the figure shows; the table has all."""
TALLEST = 3
"""Times the height of the null that a panel shows; a taller peak is cut off."""
REACH = 7
"""Standard deviations of chance to each side of 90 degrees that a panel shows."""
BINS, FEW_BINS, FEW = 70, 35, 5000
"""Of a histogram; fewer where there are fewer pairs than `FEW`."""
CHANCE = "#d9d9d9"


def angles(groups: Sequence[Group], caption: str) -> dict[str, bytes]:
    """A row for the weights and for each cell, left rows or down-projections, right columns or up; svg and png."""
    rows = [of for of in dict.fromkeys(group.of for group in groups) if not of.startswith("pretrained") or of in SHOWN]
    with own_style():
        return images(_draw_angles(groups, rows, caption))


def _draw_angles(groups: Sequence[Group], rows: list[str], caption: str) -> "Figure":
    from matplotlib.figure import Figure

    top, bottom, row_high, left, gap = 0.3, 0.45, 0.5, 0.06, 0.1  # inches
    high = top + bottom + row_high * len(rows)
    wide = (COLUMN - 2 * left - gap) / 2
    figure = Figure(figsize=(COLUMN, high))
    for row, of in enumerate(rows):
        for column, sides in enumerate((("rows", "down"), ("columns", "up"))):
            x, y = left + column * (wide + gap), bottom + row_high * (len(rows) - 1 - row)
            axes = figure.add_axes((x / COLUMN, y / high, wide / COLUMN, 0.66 * row_high / high))
            own = [group for group in groups if group.of == of and group.side in sides]
            _panel(axes, own, last=row == len(rows) - 1)
            if column == 0:
                name = cut(one_line(of), LONGEST)
                axes.text(0.0, 1.04, name, transform=axes.transAxes, fontsize=6, color=INK, va="bottom")
    for column, text in enumerate(("rows of W, down-projections", "columns of W, up-projections")):
        figure.text((left + column * (wide + gap)) / COLUMN, 1 - 0.29 / high, text, fontsize=6, fontweight="bold")
    figure.text(left / COLUMN, 1 - 0.06 / high, one_line(caption), va="top", fontsize=6.5)
    note = (
        "Angle of two vectors (degrees). Grey: random directions; dashed: at the start.\n"
        "Numbers: root mean square cosine times √D; of random matrices: 95 %"
    )
    figure.text(0.5, 0.05 / high, note, ha="center", va="bottom", fontsize=6, linespacing=1.2)
    return figure


def _panel(axes: "Axes", groups: Sequence[Group], last: bool) -> None:
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    trained = [group for group in groups if group.when != "start"]
    shown = (trained or list(groups))[:1]
    if not shown:
        axes.set_axis_off()
        return
    (main,) = shown
    dimension = main.angles.dimension
    reach = np.degrees(REACH / np.sqrt(dimension))
    fine = np.linspace(90 - reach, 90 + reach, 300)
    by_chance = density(fine, dimension)
    axes.fill_between(fine, by_chance, color=CHANCE, lw=0)
    top = by_chance.max()
    edges = np.linspace(90 - reach, 90 + reach, 1 + (BINS if main.angles.pairs > FEW else FEW_BINS))
    for group in groups:
        if group.angles.dimension == dimension:
            heights, first = _histogram(group.cosines, edges), group.when == "start"
            top = max(top, heights.max())
            look = {"color": INK, "lw": 0.6, "ls": (0, (2, 1.5))} if first else {"color": FRONT, "lw": 0.9}
            axes.stairs(heights, edges, zorder=3 if first else 2, **look)
    axes.set(xlim=(90 - reach, 90 + reach), ylim=(0, 1.1 * min(top, TALLEST * by_chance.max())))
    text = f"{main.angles.spread:.2f}\n({main.null.spread[0]:.2f}-{main.null.spread[1]:.2f})"
    axes.text(1.0, 1.1, text, transform=axes.transAxes, ha="right", va="top", fontsize=5.5, color=INK)
    step = max(step for step in (1, 2, 5, 10, 20, 40) if step <= max(1, 0.8 * reach))
    axes.set_xticks([90 - step, 90, 90 + step])
    axes.tick_params(labelsize=5.5, length=2, pad=1, labelbottom=True)
    if not last:
        axes.tick_params(labelbottom=False)


def _histogram(cosines: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Per degree, a share of all pairs."""
    counts, _ = np.histogram(np.degrees(np.arccos(cosines)), edges)
    return counts / len(cosines) / (edges[1] - edges[0])


def sizes(rows: Sequence[dict[str, Any]], caption: str) -> dict[str, bytes]:
    """Norms and effective rank of the updates, a line for each cell and site; svg and png.

    rows: as `analysis_report.size_rows` makes them.  Nothing where no cell can be merged.
    """
    updates = [row for row in rows if row["what"].startswith("update") and row["when"] == "trained"]
    starts = {(r["of"], r["what"]): r for r in rows if r["what"].startswith("update") and r["when"] == "start"}
    if not updates:
        return {}
    with own_style():
        return images(_draw_sizes(updates, starts, caption))


def _draw_sizes(rows: Sequence[dict[str, Any]], starts: dict[Any, dict[str, Any]], caption: str) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    names = [f"{cut(one_line(row['of']), LONGEST)}, {row['what'].removeprefix('update of ')}" for row in rows]
    left, top, bottom, gap = 0.12 + text_width(names), 0.3, 0.4, 0.12  # inches
    high = top + bottom + 0.15 * len(rows)
    wide = (COLUMN - left - gap - 0.08) / 2
    figure = Figure(figsize=(COLUMN, high))
    kinds = (("norm of the update", ("spectral", "frobenius")), ("effective rank", ("effective_rank",)))
    for column, (label, values) in enumerate(kinds):
        place = ((left + column * (wide + gap)) / COLUMN, bottom / high, wide / COLUMN, 1 - (top + bottom) / high)
        axes = figure.add_axes(place)
        for index, row in enumerate(rows):
            for value in values:
                hollow = value == "frobenius"
                axes.hlines(index, row[f"{value}_low"], row[f"{value}_high"], color=OTHERS, lw=0.8)
                face = "white" if hollow else FRONT
                axes.scatter(row[value], index, s=13, facecolors=face, edgecolors=FRONT, linewidths=0.8, zorder=3)
                if start := starts.get((row["of"], row["what"])):
                    axes.scatter(start[value], index, s=12, marker="|", color=INK, linewidths=0.8, zorder=4)
        axes.set(xscale="log", ylim=(len(rows) - 0.5, -0.5))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(rows)), names if column == 0 else [""] * len(rows), fontsize=6)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=5.5)
        axes.set_xlabel(label, fontsize=6, labelpad=1)
    figure.text(0.06 / COLUMN, 1 - 0.06 / high, one_line(caption), va="top", fontsize=6.5)
    note = "Filled: spectral, hollow: Frobenius norm; lines: all blocks; bars: at the start"
    figure.text(0.5, 0.05 / high, note, ha="center", fontsize=6)
    return figure
