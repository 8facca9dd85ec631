"""Names beside the points of a crowded figure.

A deterministic search: each label tries positions on rings around its point and keeps the one with the lowest cost,
for several rounds.  adjustText was tried: on the committed 60-method results it was 2 to 60 times slower, wrote over
points and over the Pareto front, and left names nearer to other points than to their own.  Units are points (1/72 in).
"""

from typing import TYPE_CHECKING

import numpy as np

from .style import BLUE, GREY, INK, PNG_DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 18
"""Maximum number of named points; more do not fit into the width of a column."""
MARGIN = (3, 0)
"""Free space around a name, in width and height; its height already includes some."""
ROUNDS = 8
RINGS = (4.0, 7.0, 11.0, 16.0, 22.0, 29.0, 37.0, 46.0, 56.0)
"""Gaps between point and label, from touching to as far as a leader line can be followed (our choice)."""
ANGLES = np.arange(24) * (2 * np.pi / 24)


def name_points(
    axes: "Axes", names: list[str], data: np.ndarray, std: np.ndarray, on_front: np.ndarray, is_named: np.ndarray
) -> None:
    """Write names beside their points without overlaps; distant names get a leader line.

    Args:
        data: [n, 2] in the units of the axes.
        std: [n] half-lengths of the error bars.
        on_front: [n] bool, True for points of the Pareto front.
        is_named: [n] bool, True for points that are named however crowded the figure is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    scale = 72 / PNG_DPI
    renderer = FigureCanvasAgg(axes.get_figure(root=True)).get_renderer()  # pyright: ignore[reportArgumentType]
    box = axes.get_window_extent(renderer)
    origin, frame = np.array([box.x0, box.y0]), np.array([box.width, box.height]) * scale
    points, ends = ((axes.transData.transform(where) - origin) * scale for where in (data, data + np.array([0, 1])))
    bar = np.stack([np.full(len(data), 2.0), (ends[:, 1] - points[:, 1]) * std + 1], axis=1)
    dots = np.hstack([points - 3.5, points + 3.5])
    stairs = _stairs(points[on_front], frame[0])
    obstacles = np.vstack([dots, dots, np.hstack([points - bar, points + bar]), stairs])
    widest = stairs[(stairs[:, 2] - stairs[:, 0]).argmax()]
    named = _select(points, is_named)
    points = np.vstack([points[named], (widest[:2] + widest[2:]) / 2])
    coloured = [*((names[i], INK) for i in named), ("Pareto front", BLUE)]
    texts = [axes.text(0, 0, name, fontsize=6, color=colour, ha="center", va="center") for name, colour in coloured]
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = np.array([(extent.width, extent.height) for extent in extents]) * scale + MARGIN
    to_data = lambda where: axes.transData.inverted().transform(where / scale + origin)  # noqa: E731
    for text, point, corner, size in zip(texts, points, place(points, sizes, obstacles, frame), sizes, strict=True):
        text.set_position(tuple(to_data(corner + size / 2)))
        end = np.clip(point, corner, corner + size)
        if np.linalg.norm(end - point) > 7:
            axes.plot(*to_data(np.stack([point, end])).T, color=GREY, lw=0.4, zorder=1.5)


def place(points: np.ndarray, sizes: np.ndarray, obstacles: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Find positions of labels inside the frame that overlap neither each other nor the obstacles.

    Args:
        points: [n, 2] labelled points.
        sizes: [n, 2] width and height of each label.
        obstacles: [m, 4] boxes (left, bottom, right, top).
        frame: width and height; the lower left corner is the origin.

    Returns:
        [n, 2] lower left corners.
    """
    choices = [_candidates(point, size) for point, size in zip(points, sizes, strict=True)]
    static = [
        _static_cost(boxes, points[i], obstacles, frame) + _ambiguity(boxes, points[i], np.delete(points, i, axis=0))
        for i, boxes in enumerate(choices)
    ]
    chosen = np.array([boxes[cost.argmin()] for boxes, cost in zip(choices, static, strict=True)])
    for _ in range(ROUNDS):
        before = chosen.copy()
        for i, boxes in enumerate(choices):
            others = np.delete(chosen, i, axis=0)
            leaders = _leader_lines(np.delete(points, i, axis=0), others)
            crowding = 30 * _overlap(boxes, others).sum(axis=1) + 20 * _overlap(boxes, leaders).sum(axis=1)
            chosen[i] = boxes[(static[i] + crowding).argmin()]
        if np.array_equal(chosen, before):
            break
    return chosen[:, :2]


def _select(points: np.ndarray, is_named: np.ndarray) -> list[int]:
    """Return the indices of named points: all, or the given ones and those with most space around them."""
    if len(points) <= NAMED:
        return list(range(len(points)))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    space = np.where(is_named, np.inf, distances.min(axis=1))
    return sorted(np.argsort(-space, kind="stable")[: max(NAMED, int(is_named.sum()))].tolist())


def _stairs(front: np.ndarray, right: float) -> np.ndarray:
    """Return thin boxes [m, 4] along the steps of the Pareto front; front: [k, 2]."""
    front = front[np.argsort(front[:, 0])]
    ends = np.append(front[1:, 0], right)
    level = np.stack([front[:, 0], front[:, 1] - 0.5, ends, front[:, 1] + 0.5], axis=1)
    rise = np.stack([front[1:, 0] - 0.5, front[:-1, 1], front[1:, 0] + 0.5, front[1:, 1]], axis=1)
    return np.vstack([level, rise])


def _candidates(point: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return [rings * angles, 4] boxes around a point, nearest ring first."""
    direction = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    gaps = np.repeat(RINGS, len(ANGLES))[:, None]
    centres = point + np.tile(direction, (len(RINGS), 1)) * (size / 2 + gaps)
    return np.hstack([centres - size / 2, centres + size / 2])


def _static_cost(boxes: np.ndarray, point: np.ndarray, obstacles: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return [candidates] costs that do not depend on other labels: leaving the frame, obstacles, distance."""
    outside = np.clip(-boxes[:, :2], 0, None).sum(axis=1) + np.clip(boxes[:, 2:] - frame, 0, None).sum(axis=1)
    distance = np.linalg.norm(np.clip(point, boxes[:, :2], boxes[:, 2:]) - point, axis=1)
    return 1000 * outside + 10 * _overlap(boxes, obstacles).sum(axis=1) + distance


def _ambiguity(boxes: np.ndarray, point: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return [candidates] costs of being nearer to another point, or of a leader line through another point."""
    ends = np.clip(point, boxes[:, :2], boxes[:, 2:])
    own = np.linalg.norm(ends - point, axis=1)[:, None]
    distances = np.linalg.norm(np.clip(others, boxes[:, None, :2], boxes[:, None, 2:]) - others, axis=2)
    line = point + np.linspace(0.1, 1, 8)[:, None, None] * (ends - point)
    passing = np.linalg.norm(line[:, :, None] - others, axis=3).min(axis=0)
    return 30 * (distances < own + 1).sum(axis=1) + 30 * (passing < 3).sum(axis=1)


def _leader_lines(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return small boxes [8 * n, 4] along the lines from points to their labels."""
    ends = np.clip(points, boxes[:, :2], boxes[:, 2:])
    dots = (points + np.linspace(0.1, 1.0, 8)[:, None, None] * (ends - points)).reshape(-1, 2)
    return np.hstack([dots - 0.8, dots + 0.8])


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return [a, b] the shared area of each pair of boxes."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)
