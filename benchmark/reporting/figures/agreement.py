"""Heat map of the disagreement between methods, in the order of a clustering, with its tree."""

from typing import TYPE_CHECKING

import numpy as np

from ..agreement import Agreement
from ..leaderboards import Leaderboard
from ..tables import fixed
from .style import INK, add_axes, add_text, page_width, short, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 0.235
"""Side in inches of a pair."""
TREE = 0.55
"""Width in inches of the tree."""


def draw(found: Agreement, leaderboard: Leaderboard) -> "Figure":
    """Draw the mean disagreements in percent; the diagonal has those between two seeds of one method."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    order = list(found.order)
    labels = [short(found.labels[place]) for place in order]
    shown = 100 * found.disagreement()[np.ix_(order, order)]
    names, side = text_width(labels), CELL * len(labels)  # inches; names above are rotated by 60 degrees
    left, bottom, top, right = 0.1 + names, 0.5, 0.42 + 0.87 * names, 0.1 + TREE
    right = max(right, 0.06 + 0.5 * names)
    width = page_width(left + side + right)
    figure = Figure(figsize=(width, bottom + side + top))
    axes = add_axes(figure, left, bottom, side, side)
    colours = LinearSegmentedColormap.from_list("apart", ["#ffffff", "#6db3dd"])
    image = axes.imshow(shown, cmap=colours, vmin=0, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(shown):
        if not np.isnan(value):
            style = {"fontstyle": "italic", "fontweight": "bold"} if row == column else {}
            axes.text(column, row, fixed(value, 0), None, ha="center", va="center", fontsize=5.5, color=INK, **style)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(labels)), labels, rotation=60, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0, labelsize=6, pad=2, top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    _draw_tree(add_axes(figure, left + side + 0.05, bottom, TREE, side), found)
    write_title(figure, leaderboard)
    bar = add_axes(figure, left, 0.36, min(side, 1.6), 0.06)
    figure.colorbar(image, cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=6, length=2, pad=1)
    add_text(figure, left, 0.06, "% of test images with different classes; diagonal: two seeds", va="bottom")
    return figure


def _draw_tree(axes: "Axes", found: Agreement) -> None:
    """Draw the tree from the rows to the right, from the closest pair on; joins are at mean disagreements."""
    from scipy.cluster.hierarchy import dendrogram

    tree = dendrogram(found.tree, no_plot=True)
    for heights, places in zip(tree["dcoord"], tree["icoord"], strict=True):
        axes.plot(heights, [(place - 5) / 10 for place in places], color=INK, lw=0.6)  # scipy's leaves are at 5, 15, ..
    axes.set_ylim(len(found.labels) - 0.5, -0.5)
    lowest, highest = found.tree[0, 2], found.tree[-1, 2]
    axes.set_xlim(max(0.0, lowest - (highest - lowest) / 4), highest + (highest - lowest) / 50 + 1e-9)
    axes.set_axis_off()
