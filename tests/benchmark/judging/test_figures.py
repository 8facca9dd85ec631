"""Figures: the right points on the front, names that can be read, the same bytes each time."""

import io
from itertools import combinations
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image
from vtab_peft.benchmark.judging import figures
from vtab_peft.benchmark.judging.boards import Leaderboard, boards, leaderboard
from vtab_peft.benchmark.judging.figures import accuracy_vs_params, pareto_front, tasks
from vtab_peft.benchmark.judging.labels import place
from vtab_peft.benchmark.store import Store


def only(store: Store) -> Leaderboard:
    ((board, runs),) = boards(store.frame([]))
    return leaderboard(board, runs)


def fill(put, methods: dict[str, tuple[int, float]], names=("flowers", "cars"), seeds: int = 2) -> None:
    for title, (params, accuracy) in methods.items():
        for task in names:
            for seed in range(seeds):
                put(task, title.lower().replace("-", "_"), seed, accuracy + seed / 100, title=title, params=params)


METHODS = {"Linear": (0, 0.6), "LoRA": (36_864, 0.8), "SSF": (51_000, 0.78), "Full": (5_500_000, 0.7)}


# The Pareto front


def test_the_front_holds_what_nothing_cheaper_reaches():
    points = [(0, 50.0), (10, 70.0), (20, 60.0), (30, 80.0), (30, 75.0), (40, 80.0)]
    assert pareto_front(points) == [0, 1, 3]


def test_the_front_agrees_with_its_definition_on_random_points():
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


# Names


def boxes_of(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.hstack([corners, corners + sizes])


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) > 1e-9).all())


@pytest.mark.parametrize("seed", range(10))
def test_twelve_names_do_not_overlap_each_other_or_a_point(seed):
    rng = np.random.default_rng(seed)
    frame = (200.0, 145.0)
    points = rng.uniform(10, 135, size=(12, 2)) * [1.4, 1.0]
    sizes = np.stack([rng.uniform(15, 45, 12), np.full(12, 8.0)], axis=1)
    dots = np.hstack([points - 3, points + 3])
    placed = boxes_of(place(points, sizes, dots, frame), sizes)
    assert not [pair for pair in combinations(range(12), 2) if overlap(placed[pair[0]], placed[pair[1]])]
    assert not [(i, j) for i in range(12) for j in range(12) if overlap(placed[i], dots[j])]
    assert (placed[:, :2] >= 0).all()
    assert (placed[:, 2:] <= frame).all()


def test_a_lone_name_stands_beside_its_point():
    (corner,) = place(np.array([[50.0, 50.0]]), np.array([[20.0, 8.0]]), np.array([[47.0, 47, 53, 53]]), (100, 100))
    nearest = np.clip([50, 50], corner, corner + np.array([20, 8]))
    assert np.linalg.norm(nearest - [50, 50]) < 8


# Bytes


@pytest.mark.parametrize("draw", [accuracy_vs_params, tasks])
def test_a_figure_is_rebuilt_byte_for_byte_whatever_the_users_settings_are(store, put, draw):
    fill(put, METHODS)
    board = only(store)
    first = draw(board)
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": None, "savefig.dpi": 50, "axes.facecolor": "red"}):
        second = draw(board)
    assert first.keys() == {"svg", "png"}
    assert first == second
    assert b"<dc:date>" not in first["svg"]


def test_drawing_leaves_the_users_settings_alone(store, put):
    fill(put, METHODS)
    with matplotlib.rc_context({"font.size": 20}):
        accuracy_vs_params(only(store))
        assert matplotlib.rcParams["font.size"] == 20


def test_figures_have_the_width_of_a_column_or_a_page(store, put):
    fill(put, METHODS)
    assert Image.open(io.BytesIO(accuracy_vs_params(only(store))["png"])).width == 990  # 3.3 in at 300 dpi
    assert Image.open(io.BytesIO(tasks(only(store))["png"])).width == 990
    fill(put, METHODS, names=[f"task{place}" for place in range(14)], seeds=1)
    assert Image.open(io.BytesIO(tasks(only(store))["png"])).width == 2070


# What is drawn


def drawn(monkeypatch, board: Leaderboard, draw):
    """The matplotlib figure behind a drawing."""
    kept = []
    inner = getattr(figures, f"_draw_{draw.__name__}")
    monkeypatch.setattr(figures, f"_draw_{draw.__name__}", lambda board: kept.append(inner(board)) or kept[-1])
    images = draw(board)
    ElementTree.fromstring(images["svg"])
    return kept[0]


def test_each_ranked_method_is_named_and_drawn_once(store, put, monkeypatch):
    fill(put, METHODS)
    put("flowers", "half", 0, 0.9, title="Half")
    figure = drawn(monkeypatch, only(store), accuracy_vs_params)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(texts) == sorted([*METHODS, "Pareto front"])
    front, others = (collection.get_offsets() for collection in figure.axes[0].collections[-2:])
    assert sorted(np.round(front[:, 1], 3)) == [60.5, 80.5]
    assert sorted(np.round(others[:, 1], 3)) == [70.5, 78.5]
    assert np.round(front[:, 0].max(), 6) == np.round(np.log10(36_864), 6)


def test_a_crowded_figure_names_the_front_and_the_lonely_and_says_so(store, put, monkeypatch):
    crowd = {f"Method-{place}": (37_000 + 50 * place, 0.60 + 0.0001 * place) for place in range(20)}
    fill(put, METHODS | crowd | {"Far off": (1_000_000, 0.30)})
    axes = drawn(monkeypatch, only(store), accuracy_vs_params).axes[0]
    named = {text.get_text() for text in axes.texts} - {"Pareto front"}
    assert len(named) == figures.NAMED
    assert named >= {*METHODS, "Far off"}
    assert sum(len(collection.get_offsets()) for collection in axes.collections[-2:]) == 25
    assert "the table names all" in axes.get_title(loc="left")


def test_no_name_covers_another_or_leaves_the_axes(store, put, monkeypatch):
    close = {f"Method-{place}": (30_000 + 2_000 * place, 0.80 + 0.002 * (place % 4)) for place in range(12)}
    fill(put, METHODS | close)
    figure = drawn(monkeypatch, only(store), accuracy_vs_params)
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    frame = axes.get_window_extent()
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.shrunk(0.99, 0.99).overlaps(b.shrunk(0.99, 0.99))]
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


def test_zero_parameters_stand_left_of_the_smallest(store, put, monkeypatch):
    fill(put, METHODS)
    axes = drawn(monkeypatch, only(store), accuracy_vs_params).axes[0]
    labels = {label.get_text(): label.get_position()[0] for label in axes.get_xticklabels()}
    assert labels["0"] < np.log10(36_864) - 0.5
    assert labels["100k"] == 5
    assert axes.get_xlim()[0] < labels["0"]


def test_the_heat_map_shows_every_cell_and_marks_the_best(store, put, monkeypatch):
    fill(put, {"LoRA": (100, 0.8), "SSF": (100, 0.6)}, seeds=1)
    put("flowers", "half", 0, 0.7, title="Half")
    axes = drawn(monkeypatch, only(store), tasks).axes[0]
    cells = {text.get_position(): (text.get_text(), text.get_fontweight()) for text in axes.texts}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["LoRA", "SSF", "Half"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cars", "flowers"]
    assert cells == {
        **{(0, 0): ("80.0", "bold"), (1, 0): ("80.0", "bold")},
        **{(0, 1): ("60.0", "normal"), (1, 1): ("60.0", "normal")},
        **{(0, 2): ("—", "normal"), (1, 2): ("70.0", "normal")},
    }


@pytest.mark.parametrize(
    "methods",
    [
        {"Linear": (0, 0.5)},
        {"LoRA": (36_864, 0.5)},
        {"LoRA": (36_864, 0.5), "SSF": (36_864, 0.5)},
        {"Zero": (1_000, 0.0), "One": (10**9, 0.98)},
        {"$\\frac{$": (10, 0.5), "\\frac{": (100, 0.6), "<b>&": (1000, 0.7), "漢字": (2000, 0.6), "m" * 200: (10, 0.1)},
    ],
    ids=["only zero", "one", "twice the same", "extremes", "hostile names"],
)
def test_odd_boards_can_be_drawn(store, put, monkeypatch, methods):
    fill(put, methods, seeds=1)
    for draw in (accuracy_vs_params, tasks):
        drawn(monkeypatch, only(store), draw)


def test_a_board_without_a_complete_row_says_so(store, put, monkeypatch):
    put("flowers", "lora", 0, 0.5)
    put("cars", "ssf", 0, 0.5, title="SSF")
    figure = drawn(monkeypatch, only(store), accuracy_vs_params)
    assert [text.get_text() for text in figure.axes[0].texts] == ["no method has run on all tasks yet"]
