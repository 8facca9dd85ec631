"""Accuracy over each setting, a panel per method and field; and the expected best accuracy of k random trials."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from ..sensitivity import MethodSensitivity, Slice
from ..tables import cut, learning_rate
from .style import BLUE, COLUMN, GREY, INK, add_axes, add_text, short, write_legend, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = (("-", BLUE), ("--", "#D55E00"), (":", "#000000"), ("-.", "#CC79A7"), ("-", "#009E73"), ("--", "#E69F00"))
"""Styles and colours (Okabe and Ito's) of the curves of methods, in turn."""
PANEL, HEIGHT, GAP, ROW = 1.25, 0.75, 0.3, 0.45
"""Width and height of a panel, and space between panels, in inches."""
PER_ROW = 4
"""Methods side by side where each has one field."""


def draw_slices(methods: Sequence[MethodSensitivity], title: str) -> "Figure | None":
    """Draw a row of panels per method, or a panel where each has one field; None without any slice."""
    from matplotlib.figure import Figure

    shown = [method for method in methods if method.slices]
    if not shown:
        return None
    fields = max(len(method.slices) for method in shown)
    side = min(PER_ROW, len(shown)) if fields == 1 else 1
    columns, rows = fields * side, -(-len(shown) // side)
    left, top, bottom = 0.45, 0.38, 0.42
    width = max(COLUMN, left + columns * (PANEL + GAP))
    figure = Figure(figsize=(width, top + bottom + rows * HEIGHT + (rows - 1) * ROW))
    for number, method in enumerate(shown):
        low, high = _limits(method)
        row, place = divmod(number, side)
        for column, found in enumerate(method.slices, start=place):
            below = bottom + (rows - 1 - row) * (HEIGHT + ROW)
            axes = add_axes(figure, left + column * (PANEL + GAP), below, PANEL, HEIGHT)
            _draw_slice(axes, found)
            axes.set_ylim(low, high)
            axes.set_title(
                cut(f"{method.title} · {found.field}" if found is method.slices[0] else found.field, 26),
                fontsize=6,
                pad=3,
            )
    write_title(figure, title)
    middle = bottom + (rows * HEIGHT + (rows - 1) * ROW) / 2
    add_text(figure, 0.06, middle, "Accuracy on val (%)", rotation=90, ha="left", va="center")
    add_text(figure, 0.06, 0.06, _note(shown), va="bottom")
    return figure


def _note(methods: Sequence[MethodSensitivity]) -> str:
    """Explain the lines and bands that are drawn."""
    plateaus = [found.plateau for method in methods for found in method.slices]
    lines = "blue: mean over tasks; grey: each task" if any(len(method.tasks) > 1 for method in methods) else ""
    band = "band: within one point of the best" if any(low < high for low, high in plateaus) else ""
    return "; ".join(part for part in (lines, band) if part)


def _limits(method: MethodSensitivity) -> tuple[float, float]:
    """Return the limits of the accuracies of one method; lines of diverged trials leave the panel below."""
    known = np.concatenate([100 * found.accuracies[found.accuracies > 0] for found in method.slices])
    if not len(known):
        return 0.0, 100.0
    margin = max(1.0, 0.08 * float(np.ptp(known)))
    return float(known.min()) - margin, float(known.max()) + margin


def _draw_slice(axes: "Axes", found: Slice) -> None:
    from matplotlib.ticker import MaxNLocator, NullLocator

    values, means = np.array(found.values), 100 * found.means
    if values.min() > 0 and values.max() > 4 * values.min():
        axes.set_xscale("log")
    axes.axvspan(*found.plateau, color=BLUE, alpha=0.15, lw=0)
    if len(found.accuracies) > 1:
        axes.plot(values, 100 * found.accuracies.T, color=GREY, lw=0.5, alpha=0.7, zorder=1)
    axes.plot(values, means, color=BLUE, lw=1.1, marker="o", ms=2.5, mfc="white", mew=0.8)
    best = found.best
    axes.plot(values[best], means[best], color=BLUE, marker="o", ms=3.2)
    texts = [learning_rate(value) if 0 < value < 0.01 else f"{value:g}" for value in found.values]
    axes.set_xticks(values, texts)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=5.5, pad=1.5)


def draw_expected(methods: Sequence[MethodSensitivity], title: str) -> "Figure | None":
    """Draw a curve per method; None without methods."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not methods:
        return None
    legend = -(-len(methods) // 2)
    top, bottom, height = 0.3 + 0.13 * legend, 0.4, 1.5
    figure = Figure(figsize=(COLUMN, top + bottom + height))
    axes = add_axes(figure, 0.45, bottom, COLUMN - 0.55, height)
    for method, (line, colour) in zip(methods, cycle(LINES), strict=False):
        trials = np.arange(1, len(method.expected) + 1)
        axes.plot(trials, 100 * method.expected, ls=line, color=colour, lw=1.1, label=short(method.title))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlim(left=1)
    axes.set_xlabel("Random trials")
    axes.set_ylabel("Expected best on val (%)")
    axes.grid(axis="y", color=INK, alpha=0.12, lw=0.4)
    write_legend(figure, *axes.get_legend_handles_labels(), 2, 0.22, handlelength=2.4, handletextpad=0.8)
    write_title(figure, title)
    return figure
