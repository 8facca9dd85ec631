"""Mean accuracy against what a method costs, with the Pareto front: parameters, time, or a column of cost records."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..costs import COLUMNS
from ..drawing import REPORT, Drawing
from ..leaderboards import Leaderboard
from ..published_vs_measured import method_name
from ..stats import levels
from ..tables import count, cut
from .labels import NAMED, name_points
from .style import BLUE, COLUMN, INK, short, text_width, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHORT = 22
"""Characters of a name in a crowded figure."""
WIDTH = 0.825
"""Width of the axes as a part of the figure's."""
TICKS = 24
"""Characters of the names of all ticks that fit beside each other."""


@dataclass(frozen=True)
class Cost:
    """The horizontal axis."""

    label: str
    values: np.ndarray
    """[rows]"""
    format_tick: Callable[[float], str]
    higher_is_better: bool = False
    """True to draw high values on the left, where low costs are."""


def against_params(leaderboard: Leaderboard, drawing: Drawing = REPORT) -> "Figure | None":
    """Draw accuracy against parameters; None for fewer than two ranked rows."""
    rows = _ranked(leaderboard)
    params = np.array([row["trainable_params"] for row in rows], dtype=float)
    return _draw(leaderboard, rows, Cost("Trainable parameters without the head", params, count), drawing)


def against_time(leaderboard: Leaderboard, drawing: Drawing = REPORT) -> "Figure | None":
    """Draw accuracy against time; None for fewer than two ranked rows or times of different devices.

    Devices also differ if they were shared by different numbers of concurrent runs.
    """
    rows = _ranked(leaderboard)
    seconds = np.array([row["train_seconds"] for row in rows], dtype=float)
    if len({device for row in rows for device in row["devices"]}) != 1:
        return None
    unit, size = next(((u, s) for u, s in (("h", 3600.0), ("min", 60.0)) if np.median(seconds) >= 2 * s), ("s", 1.0))
    label = f"Time to train one seed of all tasks ({unit})"
    return _draw(leaderboard, rows, Cost(label, seconds / size, "{:g}".format), drawing)


def against_column(leaderboard: Leaderboard, name: str, drawing: Drawing = REPORT) -> "Figure | None":
    """Draw accuracy against a column of cost records; None for fewer than two ranked rows that have it."""
    rows = [row for row in _ranked(leaderboard) if row[name] is not None]
    values = np.array([row[name] for row in rows], dtype=float)
    column, setup = COLUMNS[name], leaderboard.cost_setup
    if setup is None:
        return None
    cost = Cost(column.label(setup), values, "{:g}".format, column.higher_is_better)
    return _draw(leaderboard, rows, cost, drawing)


def pareto_front(points: list[tuple[float, float]]) -> list[int]:
    """Return the indices of the undominated (cost, value) pairs, by increasing cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def _ranked(leaderboard: Leaderboard) -> list[dict[str, Any]]:
    return [row for row in leaderboard.rows if row["rank"] is not None]


def _draw(leaderboard: Leaderboard, rows: list[dict[str, Any]], cost: Cost, drawing: Drawing) -> "Figure | None":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    tasks = len(leaderboard.tasks)
    if len(rows) < 2:
        return None
    figure = Figure(figsize=(COLUMN, 2.75))
    axes = figure.add_axes((0.155, 0.145, WIDTH, 0.735))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.set_ylabel(f"Mean accuracy over {tasks} tasks (%)" if tasks > 1 else "Accuracy (%)")
    axes.set_xlabel(cost.label)
    is_crowded = len(rows) > NAMED
    write_title(figure, leaderboard, "; the table names all" if is_crowded and not drawing.methods else "")
    mean = np.array([100 * row["mean_tasks"] for row in rows])
    std = np.array([100 * (row["std_over_seeds"] or 0) for row in rows])
    x = _log_axis(axes, cost)
    if cost.higher_is_better:
        axes.invert_xaxis()
    low, high = (mean - std).min(), (mean + std).max()
    margin = max(0.09 * (high - low), 0.5)
    axes.set_ylim(low - margin, high + margin)
    costs = -cost.values if cost.higher_is_better else cost.values
    front = pareto_front(list(zip(costs.tolist(), levels(mean / 100).tolist(), strict=True)))
    on_front = np.isin(np.arange(len(rows)), front)
    end = axes.get_xlim()[1]
    axes.step([*x[front], end], [*mean[front], mean[front][-1]], where="post", color=BLUE, lw=0.9, alpha=0.5, zorder=1)
    axes.errorbar(x, mean, std, fmt="none", ecolor=INK, elinewidth=0.6, capsize=1.5, capthick=0.6, zorder=2)
    axes.scatter(x[on_front], mean[on_front], s=17, color=BLUE, edgecolors="white", linewidths=0.5, zorder=3)
    axes.scatter(x[~on_front], mean[~on_front], s=14, facecolors="white", edgecolors=INK, linewidths=0.8, zorder=3)
    names = [cut(row["label"], SHORT) if is_crowded else short(row["label"]) for row in rows]
    is_named = on_front | [bool(drawing.methods) or _is_always_named(row["spec"]) for row in rows]
    name_points(axes, names, np.stack([x, mean], axis=1), std, on_front, is_named)
    return figure


def _is_always_named(spec: str) -> bool:
    """Return True for LoRA and AOFT with their default arguments, which readers look for first."""
    return spec == "lora" or (spec.startswith("aoft_") and spec == method_name(spec))


def _log_axis(axes: "Axes", cost: Cost) -> np.ndarray:
    """Set up a logarithmic axis with 0 left of a break; returns the positions of the values."""
    values = cost.values
    logs = np.log10(values[values > 0]) if (values > 0).any() else np.array([3.0])
    first, last = logs.min(), logs.max()
    zero = first - max(0.9, 0.22 * (last - first))
    has_zero = bool((values == 0).any())
    left = zero - 0.12 * (last - zero) if has_zero else first - max(0.08, min(0.25, 0.12 * (last - first)))
    axes.set_xlim(left, last + max(0.08 * (last - left), min(0.25, max(0.08, last - first))))
    decades = range(int(np.floor(first)) - 1, int(np.floor(last)) + 2)
    ticks = np.array([(d + np.log10(m), m) for d in decades for m in range(1, 10)])
    ticks = ticks[(ticks[:, 0] >= (first - 0.25 if has_zero else left)) & (ticks[:, 0] <= axes.get_xlim()[1])]
    choices = [np.isin(ticks[:, 1], steps) for steps in ((1,), (1, 2, 5), tuple(range(1, 10)))]
    named = ticks[next((chosen for chosen in choices if chosen.sum() > 2), choices[-1]), 0]
    names = _names(named, cost)
    inches = WIDTH * COLUMN / float(np.ptp(axes.get_xlim()))
    for steps in ((1, 2, 3, 5, 7), (1, 2, 5), (1,)):
        if len("".join(names)) <= TICKS and not _overlap(named * inches, names):
            break
        named = ticks[np.isin(ticks[:, 1], steps), 0]
        names = _names(named, cost)
    axes.set_xticks([zero, *named] if has_zero else named, ["0", *names] if has_zero else names)
    axes.set_xticks(ticks[:, 0], minor=True, labels=[""] * len(ticks))
    if has_zero:
        style: dict[str, Any] = {"marker": [(-0.6, -1), (0.6, 1)], "color": INK, "ms": 5, "mew": 0.6, "clip_on": False}
        for shift in (-0.012, 0.012):
            where = zero + 0.45 * (first - zero) + shift * (last - left)
            axes.plot(where, 0, transform=axes.get_xaxis_transform(), **style)
    return np.where(values > 0, np.log10(np.maximum(values, 1e-9)), zero)


def _overlap(places: np.ndarray, names: Sequence[str]) -> bool:
    """Return whether names of 7 points touch if they are centred at places in inches."""
    half = [0.5 * 7 / 6 * text_width([name]) for name in names]
    return any(b - a < of_a + of_b for (a, of_a), (b, of_b) in pairwise(zip(places, half, strict=True)))


def _names(ticks: np.ndarray, cost: Cost) -> list[str]:
    """Return the texts of logarithms, without zeros behind the decimal point."""
    return [re.sub(r"\.0+(?=\D|$)", "", cost.format_tick(round(10**tick, 9))) for tick in ticks]
