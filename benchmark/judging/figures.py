"""Figures for papers: accuracy against trainable parameters, and every method on every task.

Legible at the column width they are drawn for, in colours that colour-blind readers and grey printers can tell
apart, and byte-identical when rebuilt: fixed ids, no dates, matplotlib's own defaults whatever the user's are.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .boards import Leaderboard, one_line
from .labels import nearest_edge, place
from .tables import DASH, count, cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches of one column and of the whole page of a two-column paper."""
FRONT, OTHERS, INK = "#0072B2", "#8c8c8c", "#222222"
"""Blue of Okabe and Ito's colour-blind-safe palette (2008), and greys."""
BEST = "#6db3dd"
"""A lighter blue (ours), on which black figures are easy to read."""
PNG_DPI = 300
STYLE = {
    "figure.dpi": PNG_DPI,  # text is measured as it will be drawn
    "font.size": 7,
    "axes.titlesize": 6.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **{"xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.minor.width": 0.4},
    **{"xtick.major.size": 3, "ytick.major.size": 3, "xtick.minor.size": 1.6},
    "text.parse_math": False,  # names may hold dollar signs
    "svg.hashsalt": "vtab-peft",
    "svg.fonttype": "path",
}
CELL = 0.25
"""Inches that an accuracy needs in the heat map."""
NAMED = 18
"""Points that get a name in a crowded figure (ours: more do not fit a column's width)."""
LONGEST = 30
"""Characters of a name."""
AIR = (3, 0)
"""Points of air that a name needs around it, in width and height; its height has some already."""
WORST = 20
"""Points below a task's best where the heat map's colours end (ours: beyond that, how far hardly matters)."""


def accuracy_vs_params(board: Leaderboard) -> dict[str, bytes]:
    """Mean accuracy, with its spread over seeds, against trainable parameters, and the Pareto front; svg and png."""
    return drawn(lambda: _draw_accuracy_vs_params(board))


def tasks(board: Leaderboard) -> dict[str, bytes]:
    """Accuracy of every method on every task, coloured by the distance to the task's best; svg and png."""
    return drawn(lambda: _draw_tasks(board))


def pareto_front(points: list[tuple[float, float]]) -> list[int]:
    """Indices, by growing cost, of the (cost, value) pairs that nothing cheaper or equal reaches or beats."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def drawn(draw: "Callable[[], Figure]") -> dict[str, bytes]:
    """A figure in the project's style; svg and png."""
    with _own_style():
        figure = draw()
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", metadata={"Software": None}, dpi=PNG_DPI)
    return {"svg": svg.getvalue(), "png": png.getvalue()}


@contextmanager
def _own_style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # pyright: ignore[reportCallIssue, reportArgumentType]
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")  # a name in another script
        yield


def _draw_accuracy_vs_params(board: Leaderboard) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(COLUMN, 2.75))
    axes = figure.add_axes((0.155, 0.145, 0.825, 0.735))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.set_ylabel(f"Mean accuracy over {len(board.tasks)} tasks (%)" if len(board.tasks) > 1 else "Accuracy (%)")
    axes.set_xlabel("Trainable parameters without the head")
    rows = [row for row in board.rows if row["rank"] is not None]
    crowded = "; the table names all" if len(rows) > NAMED else ""
    axes.set_title(title(board) + crowded, loc="left", pad=4, linespacing=1.3)
    if not rows:
        axes.text(0.5, 0.5, "no method has run on all tasks yet", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return figure
    params = np.array([row["trainable_params"] for row in rows], dtype=float)
    mean = np.array([100 * row["mean_tasks"] for row in rows])
    spread = np.array([100 * (row["std_over_seeds"] or 0) for row in rows])
    x = _parameter_axis(axes, params)
    low, high = (mean - spread).min(), (mean + spread).max()
    margin = max(0.09 * (high - low), 0.5)
    axes.set_ylim(low - margin, high + margin)
    front = pareto_front(list(zip(params.tolist(), mean.tolist(), strict=True)))
    on_front = np.isin(np.arange(len(rows)), front)
    end = axes.get_xlim()[1]
    axes.step([*x[front], end], [*mean[front], mean[front][-1]], where="post", color=FRONT, lw=0.9, alpha=0.5, zorder=1)
    axes.errorbar(x, mean, spread, fmt="none", ecolor=INK, elinewidth=0.6, capsize=1.5, capthick=0.6, zorder=2)
    axes.scatter(x[on_front], mean[on_front], s=17, color=FRONT, edgecolors="white", linewidths=0.5, zorder=3)
    axes.scatter(x[~on_front], mean[~on_front], s=14, facecolors="white", edgecolors=INK, linewidths=0.8, zorder=3)
    _name_points(axes, [cut(row["label"], LONGEST) for row in rows], np.stack([x, mean], axis=1), spread, on_front)
    return figure


def _parameter_axis(axes: "Axes", params: np.ndarray) -> np.ndarray:
    """A logarithmic axis; 0 stands left of a break, one decade before the smallest.  Returns positions on it."""
    some = np.log10(params[params > 0]) if (params > 0).any() else np.array([3.0])
    first, last = some.min(), some.max()
    zero = first - max(0.9, 0.22 * (last - first))
    has_zero = bool((params == 0).any())
    left = zero - 0.12 * (last - zero) if has_zero else first - 0.25
    axes.set_xlim(left, last + max(0.25, 0.08 * (last - left)))
    ticks = np.array([(d + np.log10(m), m) for d in range(int(first) - 1, int(last) + 2) for m in range(1, 10)])
    ticks = ticks[(ticks[:, 0] >= first - 0.25) & (ticks[:, 0] <= axes.get_xlim()[1])]
    decades = ticks[:, 1] == 1
    named = ticks[decades if decades.sum() > 1 else np.isin(ticks[:, 1], (1, 2, 5)), 0]
    names = [re.sub(r"\.0+(?=\D|$)", "", count(10**tick)) for tick in named]
    axes.set_xticks([zero, *named] if has_zero else named, ["0", *names] if has_zero else names)
    axes.set_xticks(ticks[:, 0], minor=True)
    if has_zero:
        where = zero + 0.45 * (first - zero)
        for shift in (-0.012, 0.012):
            axes.plot(
                where + shift * (last - left),
                0,
                transform=axes.get_xaxis_transform(),
                **{"marker": [(-0.6, -1), (0.6, 1)], "color": INK, "ms": 5, "mew": 0.6, "clip_on": False},
            )
    return np.where(params > 0, np.log10(np.maximum(params, 1)), zero)


def _name_points(axes: "Axes", names: list[str], data: np.ndarray, spread: np.ndarray, on_front: np.ndarray) -> None:
    """Write names beside their points, off all others; a thin line leads to one where there is no room close by."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    scale = 72 / PNG_DPI
    renderer = FigureCanvasAgg(axes.get_figure(root=True)).get_renderer()  # pyright: ignore[reportArgumentType]
    box = axes.get_window_extent(renderer)
    to_points = lambda where: (axes.transData.transform(where) - (box.x0, box.y0)) * scale  # noqa: E731
    points = to_points(data)
    reach = (to_points(data + np.array([0, 1]))[:, 1] - points[:, 1]) * spread
    bars = np.stack([points[:, 0] - 2, points[:, 1] - reach - 1, points[:, 0] + 2, points[:, 1] + reach + 1], axis=1)
    dots = np.hstack([points - 3.5, points + 3.5])
    stairs = _stairs(points[on_front], box.width * scale)
    widest = stairs[(stairs[:, 2] - stairs[:, 0]).argmax()]
    named = _worth_a_name(points, on_front)
    points = np.vstack([points[named], (widest[:2] + widest[2:]) / 2])
    coloured = [*((names[i], INK) for i in named), ("Pareto front", FRONT)]
    texts = [axes.text(0, 0, name, fontsize=6, color=ink, ha="center", va="center") for name, ink in coloured]
    sizes = np.array([(e.width * scale, e.height * scale) for e in (t.get_window_extent(renderer) for t in texts)])
    sizes += AIR
    corners = place(points, sizes, np.vstack([dots, dots, bars, stairs]), (box.width * scale, box.height * scale))
    from_points = axes.transData.inverted()
    for text, point, corner, size in zip(texts, points, corners, sizes, strict=True):
        x, y = from_points.transform((corner + size / 2) / scale + (box.x0, box.y0))
        text.set_position((x, y))
        end = nearest_edge(point, np.concatenate([corner, corner + size]))
        if np.linalg.norm(end - point) > 7:
            line = from_points.transform(np.stack([point, end]) / scale + (box.x0, box.y0))
            axes.plot(*line.T, color=OTHERS, lw=0.4, zorder=1.5)


def _worth_a_name(points: np.ndarray, on_front: np.ndarray) -> list[int]:
    """Indices of the points that get a name: all, or the front and those with most room around them; points: [n, 2]."""
    if len(points) <= NAMED:
        return list(range(len(points)))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    room = np.where(on_front, np.inf, distances.min(axis=1))
    return sorted(np.argsort(-room, kind="stable")[: max(NAMED, int(on_front.sum()))].tolist())


def _stairs(front: np.ndarray, right: float) -> np.ndarray:
    """Thin boxes along the Pareto front's steps, [m, 4]; front: [k, 2] in drawing order or not."""
    front = front[np.argsort(front[:, 0])]
    ends = np.append(front[1:, 0], right)
    level = np.stack([front[:, 0], front[:, 1] - 0.5, ends, front[:, 1] + 0.5], axis=1)
    rise = np.stack([front[1:, 0] - 0.5, front[:-1, 1], front[1:, 0] + 0.5, front[1:, 1]], axis=1)
    return np.vstack([level, rise])


def _draw_tasks(board: Leaderboard) -> "Figure":
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    names = [cut(task.label, LONGEST) for task in board.tasks]
    labels = [cut(row["label"], LONGEST) for row in board.rows]
    accuracy = _percent([[row[f"accuracy_{task.label}"] for task in board.tasks] for row in board.rows])
    below = np.nanmax(accuracy, axis=0) - accuracy
    worst = min(WORST, 5 * max(1, int(np.ceil(np.nanmax(below) / 5))))
    # Inches; task names lean by 60 degrees.
    left, right = 0.1 + text_width(labels), max(0.06, 0.5 * text_width(names[-1:]) - 0.05)
    bottom, height, top = 0.42, 0.155 * len(labels), 0.38 + 0.87 * text_width(names)
    needed = left + right + CELL * len(names)
    wide = next((width for width in (COLUMN, PAGE) if needed <= width), needed)
    high, width = bottom + height + top, wide - left - right
    figure = Figure(figsize=(wide, high))
    axes = figure.add_axes((left / wide, bottom / high, width / wide, height / high))
    colours = LinearSegmentedColormap.from_list("below", [BEST, "#ffffff"])
    image = axes.imshow(below, cmap=colours, vmin=0, vmax=worst, aspect="auto", interpolation="nearest")
    _write_cells(axes, accuracy, below == 0)
    for index, (task, following) in enumerate(pairwise(board.tasks)):
        if task.group != following.group:
            axes.axvline(index + 0.5, color="white", lw=2)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0, labelsize=6, pad=2, top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.text(0.06 / wide, 1 - 0.05 / high, title(board), va="top", fontsize=6.5, linespacing=1.3)
    bar = figure.add_axes((min(left, wide - 1.75) / wide, 0.29 / high, 1.6 / wide, 0.06 / high))
    figure.colorbar(image, cax=bar, orientation="horizontal", ticks=range(0, worst + 1, 5))
    bar.tick_params(labelsize=6, length=2, pad=1)
    beyond = " and more" if np.nanmax(below) > worst else ""
    bar.set_xlabel(f"0 to {worst}{beyond} points below the task's best", fontsize=6, labelpad=1)
    return figure


def text_width(names: list[str]) -> float:
    """Inches that the widest of some names takes at 6 points."""
    from matplotlib.textpath import TextPath

    return max(float(TextPath((0, 0), f"{name}.", 6).get_extents().x1) for name in names) / 72


def _write_cells(axes: "Axes", accuracy: np.ndarray, best: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(accuracy):
        text = DASH if np.isnan(value) else f"{value:.1f}"
        weight = "bold" if best[row, column] else "normal"
        axes.text(column, row, text, ha="center", va="center_baseline", fontsize=5.5, color=INK, fontweight=weight)


def _percent(cells: list[list[Any]]) -> np.ndarray:
    return np.array([[np.nan if cell is None else 100 * cell for cell in row] for row in cells])


def title(board: Leaderboard) -> str:
    """Suite and backbone above, recipe and seeds below."""
    facts = board.board
    tuned = "tuned" if facts.tuned else "untuned"
    return one_line(f"{facts.suite} · {facts.backbone}") + "\n" + one_line(f"{facts.recipe}, {tuned}, {board.seeds}")
