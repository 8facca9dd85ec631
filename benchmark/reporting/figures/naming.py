"""Names beside the points of a crowded figure, off each other and off what is drawn."""

from typing import TYPE_CHECKING

import numpy as np

from .labels import nearest_edge, place
from .style import FRONT, INK, OTHERS, PNG_DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 18
"""Points that get a name (ours: more do not fit a column's width)."""
AIR = (3, 0)
"""Points of air that a name needs around it, in width and height; its height has some already."""


def name_points(axes: "Axes", names: list[str], data: np.ndarray, spread: np.ndarray, on_front: np.ndarray) -> None:
    """Write names beside their points, off all others; a thin line leads to one where there is no room close by.

    data: [n, 2] in the axes' units; spread: [n] half the length of each error bar; on_front: [n] bool.
    """
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
