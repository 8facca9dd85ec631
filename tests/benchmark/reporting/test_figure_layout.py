"""The Pareto front, places of labels, wrapped titles, and pages of long figures."""

from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from vtab_peft.benchmark.reporting.drawing import REPORT
from vtab_peft.benchmark.reporting.figures.cost import pareto_front
from vtab_peft.benchmark.reporting.figures.labels import place
from vtab_peft.benchmark.reporting.figures.style import COLUMN, LINES_PER_PAGE, images, pages, paper_style, write_title


def test_front_is_the_undominated_points():
    points = [(0, 50.0), (10, 70.0), (20, 60.0), (30, 80.0), (30, 75.0), (40, 80.0)]
    assert pareto_front(points) == [0, 1, 3]


def test_front_matches_its_definition_on_random_points():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = [(float(cost), float(value)) for cost, value in rng.integers(0, 12, size=(15, 2))]
        front = {points[index] for index in pareto_front(points)}
        undominated = {
            (cost, value)
            for cost, value in points
            if not any((c <= cost and v >= value and (c, v) != (cost, value)) for c, v in points)
        }
        assert front == undominated


def boxes_of(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.hstack([corners, corners + sizes])


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) > 1e-9).all())


@pytest.mark.parametrize("seed", range(10))
def test_twelve_labels_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    frame = np.array([200.0, 145.0])
    points = rng.uniform(10, 135, size=(12, 2)) * [1.4, 1.0]
    sizes = np.stack([rng.uniform(15, 45, 12), np.full(12, 8.0)], axis=1)
    dots = np.hstack([points - 3, points + 3])
    placed = boxes_of(place(points, sizes, dots, frame), sizes)
    assert not [pair for pair in combinations(range(12), 2) if overlap(placed[pair[0]], placed[pair[1]])]
    assert not [(i, j) for i in range(12) for j in range(12) if overlap(placed[i], dots[j])]
    assert (placed[:, :2] >= 0).all()
    assert (placed[:, 2:] <= frame).all()


def test_single_label_is_beside_its_point():
    size, obstacles, frame = np.array([[20.0, 8.0]]), np.array([[47.0, 47, 53, 53]]), np.array([100, 100])
    (corner,) = place(np.array([[50.0, 50.0]]), size, obstacles, frame)
    nearest = np.clip([50, 50], corner, corner + np.array([20, 8]))
    assert np.linalg.norm(nearest - [50, 50]) < 8


def test_pages_hold_all_lines_in_order():
    for lines in (0, 1, LINES_PER_PAGE, LINES_PER_PAGE + 1, 102, 300):
        parts = [list(range(lines))[part] for part in pages(lines)]
        assert [line for part in parts for line in part] == list(range(lines))
        assert max(map(len, parts), default=0) <= LINES_PER_PAGE
        assert len(parts) == -(-lines // LINES_PER_PAGE)


def test_a_long_title_is_wrapped_within_the_figure():
    from matplotlib.figure import Figure

    title = "toy(" + ",".join(f"a_long_setting_{i}=0/0.1/0.25" for i in range(6)) + "), untuned, 3 seeds"
    with paper_style():
        figure = Figure(figsize=(COLUMN, 1))
        write_title(figure, title)
        end = figure.texts[0].get_window_extent().x1 / figure.dpi
        svg = images(figure, REPORT)["svg"]
    assert figure.texts[0].get_text().replace("\n", "").replace(" ", "") == title.replace(" ", "")
    assert end <= COLUMN
    assert float(ElementTree.fromstring(svg).attrib["height"].removesuffix("pt")) > 72


# Bytes
