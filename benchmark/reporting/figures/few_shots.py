"""Few-shot curves: mean accuracy against the number of shots, with 95 % intervals over draws."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..drawing import Drawing
from ..few_shots import FewShotTable, Point
from ..tables import cut
from .style import (
    COLUMN,
    INK,
    add_axes,
    add_text,
    image_files,
    paper_style,
    short,
    text_width,
    write_legend,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = (
    *(("#0072B2", "o"), ("#D55E00", "s"), ("#000000", "^"), ("#009E73", "D")),
    *(("#CC79A7", "v"), ("#56B4E9", "P"), ("#E69F00", "X"), ("#8c8c8c", "<")),
)
"""Colour (Okabe and Ito's) and marker of the lines, best method first; further methods are in the table alone."""
SPREAD = 0.018
"""Factor between the horizontal places of neighbouring methods, so that their bars do not hide each other."""


def draw(table: FewShotTable, drawing: Drawing) -> dict[str, bytes]:
    """Return the figure as file name -> content; empty with fewer than two numbers of shots."""
    wanted = [curve for curve in table.curves if curve[0] in drawing.methods] or table.curves
    if not (drawn := wanted[: len(STYLES)]):
        return {}
    with paper_style():
        figure = _draw(table, drawn)
        return image_files({"few_shots": figure}, drawing)


def _draw(table: FewShotTable, drawn: "Sequence[tuple[str, dict[int, Point]]]") -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    names = [cut(short(label), 24) for label, _ in drawn]
    columns = max(1, min(len(names), int((COLUMN - 0.1) / (0.35 + text_width(names)))))
    top, bottom, left, height = 0.3 + 0.12 * -(-len(names) // columns), 0.36, 0.38, 2.1  # inches
    figure = Figure(figsize=(COLUMN, top + bottom + height))
    axes = add_axes(figure, left, bottom, COLUMN - left - 0.08, height)
    for number, (name, (_, points), (colour, marker)) in enumerate(zip(names, drawn, STYLES, strict=False)):
        shift = (1 + SPREAD) ** (number - (len(drawn) - 1) / 2)
        shots = [count * shift for count in points]
        means = [100 * point.mean for point in points.values()]
        half = [100 * (p.interval.high - p.mean) if p.interval else 0.0 for p in points.values()]
        axes.errorbar(
            *(shots, means, half),
            color=colour,
            marker=marker,
            label=name,
            **{"ms": 3, "lw": 0.9, "elinewidth": 0.6, "capsize": 1.5, "capthick": 0.6},
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(table.draws), [str(shots) for shots in table.draws])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=INK, alpha=0.12, lw=0.4)
    axes.set_ylabel(f"Mean accuracy over {len(table.tasks)} tasks (%)" if len(table.tasks) > 1 else "Accuracy (%)")
    write_legend(figure, [container[0] for container in axes.containers], names, columns, 0.2)
    has_intervals = any(point.interval for _, points in drawn for point in points.values())
    bars = "; bars: 95 % over draws" if has_intervals else ""
    add_text(figure, COLUMN / 2, 0.05, f"Training images per class{bars}", ha="center")
    recipe = f"{table.id.recipe}, {'tuned' if table.id.tuned else 'untuned'}"
    write_title(figure, f"{table.id.suite} · {table.id.backbone} · {recipe}")
    return figure
