"""Figures of an analysis: angles compared with chance, and norms and effective ranks of the updates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..reporting.drawing import FOR_PAPERS
from ..reporting.figures import style
from ..reporting.figures.style import BLUE, COLUMN, GREY, INK, add_axes, add_text, short
from .angles import Group, density

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("pretrained q", "pretrained v")
"""Sites of the pretrained weights in the figure; the table has all."""
TALLEST = 3
"""Maximum height of a panel, relative to the peak of the null density; taller histograms are cut off."""
REACH = 7
"""Half-width of a panel in standard deviations of random angles."""
BINS, FEW_BINS, FEW = 70, 35, 5000
"""Bins of a histogram; FEW_BINS for at most FEW pairs."""
CHANCE = "#d9d9d9"


def angles(groups: Sequence[Group], caption: str) -> dict[str, bytes]:
    """Draw a row of two histograms for each site and run; returns file name -> bytes.

    The left panel has rows or down-projections, the right one columns or up-projections.
    """
    names = dict.fromkeys(group.of for group in groups)
    with style.paper_style():
        shown = [name for name in names if not name.startswith("pretrained") or name in SHOWN]
        return style.image_files({"angles": _draw_angles(groups, shown, caption)}, FOR_PAPERS)


def _draw_angles(groups: Sequence[Group], names: list[str], caption: str) -> "Figure":
    from matplotlib.figure import Figure

    top, bottom, row_height, left, gap = 0.3, 0.45, 0.5, 0.06, 0.1  # inches
    height = top + bottom + row_height * len(names)
    width = (COLUMN - 2 * left - gap) / 2
    figure = Figure(figsize=(COLUMN, height))
    heads = ("rows of W, down-projections", "columns of W, up-projections")
    for column, (head, sides) in enumerate(zip(heads, (("rows", "down"), ("columns", "up")), strict=True)):
        x = left + column * (width + gap)
        add_text(figure, x, height - 0.29, head, fontweight="bold")
        for row, name in enumerate(names):
            y = bottom + row_height * (len(names) - 1 - row)
            axes = add_axes(figure, x, y, width, 0.66 * row_height)
            shown = [group for group in groups if group.of == name and group.side in sides]
            _draw_panel(axes, shown, is_last=row == len(names) - 1)
            if column == 0:
                label = short(name)
                axes.text(0.0, 1.04, label, transform=axes.transAxes, fontsize=6, color=INK, va="bottom")
    style.write_title(figure, caption)
    note = (
        "Angle of two vectors (degrees). Grey: random directions; dashed: at initialisation.\n"
        "Numbers: root mean square cosine times √D; in parentheses: 95 % of random matrices"
    )
    add_text(figure, COLUMN / 2, 0.05, note, ha="center", va="bottom", linespacing=1.2)
    return figure


def _draw_panel(axes: "Axes", groups: Sequence[Group], is_last: bool) -> None:
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    trained = [group for group in groups if group.when != "start"]
    if not groups:
        axes.set_axis_off()
        return
    main = (trained or groups)[0]
    dimension = main.angles.dimension
    reach = np.degrees(REACH / np.sqrt(dimension))
    grid = np.linspace(90 - reach, 90 + reach, 300)
    by_chance = density(grid, dimension)
    axes.fill_between(grid, by_chance, color=CHANCE, lw=0)
    top = by_chance.max()
    edges = np.linspace(90 - reach, 90 + reach, 1 + (BINS if main.angles.pairs > FEW else FEW_BINS))
    for group in groups:
        if group.angles.dimension == dimension:
            heights, is_initial = _histogram(group.cosines, edges), group.when == "start"
            top = max(top, heights.max())
            look = {"color": INK, "lw": 0.6, "ls": (0, (2, 1.5))} if is_initial else {"color": BLUE, "lw": 0.9}
            axes.stairs(heights, edges, zorder=3 if is_initial else 2, **look)
    axes.set(xlim=(90 - reach, 90 + reach), ylim=(0, 1.1 * min(top, TALLEST * by_chance.max())))
    text = f"{main.angles.spread:.2f}\n({main.null.spread[0]:.2f}-{main.null.spread[1]:.2f})"
    axes.text(1.0, 1.1, text, transform=axes.transAxes, ha="right", va="top", fontsize=5.5, color=INK)
    step = max(step for step in (1, 2, 5, 10, 20, 40) if step <= max(1, 0.8 * reach))
    axes.set_xticks([90 - step, 90, 90 + step])
    axes.tick_params(labelsize=5.5, length=2, pad=1, labelbottom=is_last)


def _histogram(cosines: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the density per degree, as a share of all pairs."""
    counts, _ = np.histogram(np.degrees(np.arccos(cosines)), edges)
    return counts / len(cosines) / (edges[1] - edges[0])


def sizes(rows: Sequence[dict[str, Any]], caption: str) -> dict[str, bytes]:
    """Draw norms and effective ranks of the updates, one line per run and site.

    rows: the result of `report.size_rows`.  Returns file name -> bytes; empty if no run can be merged.
    """
    updates = [row for row in rows if row["what"].startswith("update") and row["when"] == "trained"]
    initial = {(r["of"], r["what"]): r for r in rows if r["what"].startswith("update") and r["when"] == "start"}
    if not updates:
        return {}
    with style.paper_style():
        return style.image_files({"updates": _draw_sizes(updates, initial, caption)}, FOR_PAPERS)


def _draw_sizes(rows: Sequence[dict[str, Any]], initial: dict[Any, dict[str, Any]], caption: str) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    names = [f"{short(row['of'])}, {row['what'].removeprefix('update of ')}" for row in rows]
    left, top, bottom, gap = 0.12 + style.text_width(names), 0.3, 0.4, 0.12  # inches
    height, width = 0.15 * len(rows), (COLUMN - left - gap - 0.08) / 2
    figure = Figure(figsize=(COLUMN, top + bottom + height))
    panels = (("norm of the update", ("spectral", "frobenius")), ("effective rank", ("effective_rank",)))
    for column, (label, values) in enumerate(panels):
        axes = add_axes(figure, left + column * (width + gap), bottom, width, height)
        for line, row in enumerate(rows):
            for value in values:
                axes.hlines(line, row[f"{value}_low"], row[f"{value}_high"], color=GREY, lw=0.8)
                face = "white" if value == "frobenius" else BLUE
                axes.scatter(row[value], line, s=13, facecolors=face, edgecolors=BLUE, linewidths=0.8, zorder=3)
                if before := initial.get((row["of"], row["what"])):
                    axes.scatter(before[value], line, s=12, marker="|", color=INK, linewidths=0.8, zorder=4)
        axes.set(xscale="log", ylim=(len(rows) - 0.5, -0.5))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(rows)), names if column == 0 else [""] * len(rows), fontsize=6)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=5.5)
        axes.set_xlabel(label, fontsize=6, labelpad=1)
    style.write_title(figure, caption)
    note = "Filled: spectral norm; hollow: Frobenius norm; lines: all blocks; bars: at initialisation"
    add_text(figure, COLUMN / 2, 0.05, note, ha="center")
    return figure
