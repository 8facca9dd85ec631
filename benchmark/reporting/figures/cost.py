"""Mean accuracy against what a method costs, trainable parameters or training time, and the Pareto front."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..leaderboards import Leaderboard
from ..tables import count, cut
from .naming import NAMED, name_points
from .style import COLUMN, FRONT, INK, LONGEST, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHORT = 22
"""Characters of a name where there are many."""


@dataclass(frozen=True)
class Cost:
    """What stands on the horizontal axis."""

    label: str
    values: np.ndarray
    """[ranked rows]"""
    form: Callable[[float], str]
    """Of a tick."""


def against_params(board: Leaderboard) -> "Figure | None":
    """None for fewer than two ranked rows, which show no trade."""
    params = np.array([row["trainable_params"] for row in _ranked(board)], dtype=float)
    return _draw(board, Cost("Trainable parameters without the head", params, count))


def against_time(board: Leaderboard) -> "Figure | None":
    """None for fewer than two ranked rows, and where devices, or how many cells shared one, differ from run to run."""
    seconds = np.array([row["train_seconds"] for row in _ranked(board)], dtype=float)
    if len({device for row in _ranked(board) for device in row["devices"]}) != 1:
        return None
    unit, size = next(((u, s) for u, s in (("h", 3600.0), ("min", 60.0)) if np.median(seconds) >= 2 * s), ("s", 1.0))
    return _draw(board, Cost(f"Training time of one seed, all tasks ({unit})", seconds / size, "{:g}".format))


def pareto_front(points: list[tuple[float, float]]) -> list[int]:
    """Indices, by growing cost, of the (cost, value) pairs that nothing cheaper or equal reaches or beats."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def _ranked(board: Leaderboard) -> list[dict[str, Any]]:
    return [row for row in board.rows if row["rank"] is not None]


def _draw(board: Leaderboard, cost: Cost) -> "Figure | None":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = _ranked(board)
    if len(rows) < 2:
        return None
    figure = Figure(figsize=(COLUMN, 2.75))
    axes = figure.add_axes((0.155, 0.145, 0.825, 0.735))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.set_ylabel(f"Mean accuracy over {len(board.tasks)} tasks (%)" if len(board.tasks) > 1 else "Accuracy (%)")
    axes.set_xlabel(cost.label)
    crowded = "; the table names all" if len(rows) > NAMED else ""
    axes.set_title(title(board) + crowded, loc="left", pad=4, linespacing=1.3)
    mean = np.array([100 * row["mean_tasks"] for row in rows])
    spread = np.array([100 * (row["std_over_seeds"] or 0) for row in rows])
    x = _axis(axes, cost)
    low, high = (mean - spread).min(), (mean + spread).max()
    margin = max(0.09 * (high - low), 0.5)
    axes.set_ylim(low - margin, high + margin)
    front = pareto_front(list(zip(cost.values.tolist(), mean.tolist(), strict=True)))
    on_front = np.isin(np.arange(len(rows)), front)
    end = axes.get_xlim()[1]
    axes.step([*x[front], end], [*mean[front], mean[front][-1]], where="post", color=FRONT, lw=0.9, alpha=0.5, zorder=1)
    axes.errorbar(x, mean, spread, fmt="none", ecolor=INK, elinewidth=0.6, capsize=1.5, capthick=0.6, zorder=2)
    axes.scatter(x[on_front], mean[on_front], s=17, color=FRONT, edgecolors="white", linewidths=0.5, zorder=3)
    axes.scatter(x[~on_front], mean[~on_front], s=14, facecolors="white", edgecolors=INK, linewidths=0.8, zorder=3)
    longest = SHORT if crowded else LONGEST
    name_points(axes, [cut(row["label"], longest) for row in rows], np.stack([x, mean], axis=1), spread, on_front)
    return figure


def _axis(axes: "Axes", cost: Cost) -> np.ndarray:
    """A logarithmic axis; 0 stands left of a break, one decade before the smallest.  Returns positions on it."""
    values = cost.values
    some = np.log10(values[values > 0]) if (values > 0).any() else np.array([3.0])
    first, last = some.min(), some.max()
    zero = first - max(0.9, 0.22 * (last - first))
    has_zero = bool((values == 0).any())
    left = zero - 0.12 * (last - zero) if has_zero else first - max(0.08, min(0.25, 0.12 * (last - first)))
    axes.set_xlim(left, last + max(0.08 * (last - left), min(0.25, max(0.08, last - first))))
    decades = range(int(np.floor(first)) - 1, int(np.floor(last)) + 2)
    ticks = np.array([(d + np.log10(m), m) for d in decades for m in range(1, 10)])
    ticks = ticks[(ticks[:, 0] >= (first - 0.25 if has_zero else left)) & (ticks[:, 0] <= axes.get_xlim()[1])]
    choices = [np.isin(ticks[:, 1], steps) for steps in ((1,), (1, 2, 5), tuple(range(1, 10)))]
    named = ticks[next((chosen for chosen in choices if chosen.sum() > 2), choices[-1]), 0]
    names = [re.sub(r"\.0+(?=\D|$)", "", cost.form(round(10**tick, 9))) for tick in named]
    axes.set_xticks([zero, *named] if has_zero else named, ["0", *names] if has_zero else names)
    axes.set_xticks(ticks[:, 0], minor=True, labels=[""] * len(ticks))
    if has_zero:
        where = zero + 0.45 * (first - zero)
        for shift in (-0.012, 0.012):
            axes.plot(
                where + shift * (last - left),
                0,
                transform=axes.get_xaxis_transform(),
                **{"marker": [(-0.6, -1), (0.6, 1)], "color": INK, "ms": 5, "mew": 0.6, "clip_on": False},
            )
    return np.where(values > 0, np.log10(np.maximum(values, 1e-9)), zero)
