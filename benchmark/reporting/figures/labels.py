"""Where to put the names of points in a crowded figure: a small, deterministic layout search.

Every label tries positions on rings around its point and keeps the cheapest; overlaps cost most, then distance.
The search goes round all labels a few times, so that early ones can make room.  Units are those of the caller
(figures.py uses typographic points).
"""

from collections.abc import Sequence

import numpy as np

ROUNDS = 8
RINGS = (4.0, 7.0, 11.0, 16.0, 22.0, 29.0, 37.0, 46.0, 56.0)
"""Gaps between point and label, ours: from touching to as far as a leader line can be followed."""
ANGLES = np.arange(24) * (2 * np.pi / 24)


def place(points: np.ndarray, sizes: np.ndarray, obstacles: np.ndarray, frame: tuple[float, float]) -> np.ndarray:
    """Lower left corners of labels, inside the frame and off each other and off the obstacles wherever possible.

    points: [n, 2] what is labelled; sizes: [n, 2] width and height of each label; obstacles: [m, 4] boxes
    (left, bottom, right, top) not to be covered; frame: width and height, its corner at the origin.
    Returns [n, 2].
    """
    choices = [_candidates(point, size) for point, size in zip(points, sizes, strict=True)]
    fixed = [
        _fixed_cost(boxes, points[own], obstacles, frame)
        + _confusion(boxes, points[own], np.delete(points, own, axis=0))
        for own, boxes in enumerate(choices)
    ]
    chosen = [int(cost.argmin()) for cost in fixed]
    for _ in range(ROUNDS):
        before = list(chosen)
        for own, boxes in enumerate(choices):
            others = np.array([choices[i][chosen[i]] for i in range(len(choices)) if i != own]).reshape(-1, 4)
            spokes = _spokes([points[i] for i in range(len(choices)) if i != own], others)
            crowding = 30 * _overlap(boxes, others).sum(axis=1) + 20 * _overlap(boxes, spokes).sum(axis=1)
            chosen[own] = int((fixed[own] + crowding).argmin())
        if chosen == before:
            break
    return np.array([boxes[pick][:2] for boxes, pick in zip(choices, chosen, strict=True)]).reshape(-1, 2)


def nearest_edge(point: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The place of a box (left, bottom, right, top) that is nearest to a point: where a leader line ends."""
    return np.clip(point, box[:2], box[2:])


def _candidates(point: np.ndarray, size: np.ndarray) -> np.ndarray:
    """[rings * angles, 4] boxes round a point, nearest ring first, each ring starting on the right."""
    direction = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    gaps = np.repeat(RINGS, len(ANGLES))[:, None]
    centres = point + np.tile(direction, (len(RINGS), 1)) * (size / 2 + gaps)
    return np.hstack([centres - size / 2, centres + size / 2])


def _fixed_cost(boxes: np.ndarray, point: np.ndarray, obstacles: np.ndarray, frame: tuple[float, float]) -> np.ndarray:
    """[candidates] what does not depend on the other labels: leaving the frame, obstacles, distance."""
    outside = np.clip(-boxes[:, :2], 0, None).sum(axis=1) + np.clip(boxes[:, 2:] - frame, 0, None).sum(axis=1)
    distance = np.linalg.norm(np.clip(point, boxes[:, :2], boxes[:, 2:]) - point, axis=1)
    return 1000 * outside + 10 * _overlap(boxes, obstacles).sum(axis=1) + distance


def _confusion(boxes: np.ndarray, point: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[candidates] names that are nearer to another point than to their own, leader lines that run through another."""
    ends = np.clip(point, boxes[:, :2], boxes[:, 2:])
    own = np.linalg.norm(ends - point, axis=1)[:, None]
    away = np.linalg.norm(np.clip(others, boxes[:, None, :2], boxes[:, None, 2:]) - others, axis=2)
    line = point + np.linspace(0.1, 1, 8)[:, None, None] * (ends - point)
    passing = np.linalg.norm(line[:, :, None] - others, axis=3).min(axis=0)
    return 30 * (away < own + 1).sum(axis=1) + 30 * (passing < 3).sum(axis=1)


def _spokes(points: Sequence[np.ndarray], boxes: np.ndarray) -> np.ndarray:
    """Small boxes along the leader lines of labels, so that no other label is put across them."""
    steps = np.linspace(0.1, 1.0, 8)[:, None]
    lines = [point + steps * (nearest_edge(point, box) - point) for point, box in zip(points, boxes, strict=True)] or [
        np.empty((0, 2))
    ]
    dots = np.vstack(lines)
    return np.hstack([dots - 0.8, dots + 0.8])


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[a, b] area shared by each pair of boxes."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)
