"""Figures: what each shows, legible names, byte-identical files."""

from itertools import combinations, pairwise
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from leaderboards import only_with_runs
from scipy import stats
from vtab_peft.benchmark.reporting.drawing import FORMATS, REPORT, Drawing
from vtab_peft.benchmark.reporting.figures import FIGURES, cost, curves, figures, groups, heat_map, ranks
from vtab_peft.benchmark.reporting.figures.labels import NAMED
from vtab_peft.benchmark.reporting.figures.style import images, pages, paper_style
from vtab_peft.benchmark.reporting.leaderboards import leaderboard
from vtab_peft.benchmark.reporting.significance import significance
from vtab_peft.benchmark.storage.store import Store

DRAW = {
    "accuracy_vs_params": lambda board, runs: cost.against_params(board),
    "accuracy_vs_time": lambda board, runs: cost.against_time(board),
    "tasks": lambda board, runs: heat_map.draw(board),
    "groups": lambda board, runs: groups.draw(board, significance(board, runs).group_intervals),
    "ranks": lambda board, runs: ranks.draw(board, significance(board, runs).ranking),
    "curves": lambda board, runs: curves.draw(board, curves.losses(board, runs)),
}


def fill(put, methods: dict[str, tuple[int, float]], names=("flowers", "cars"), seeds: int = 2, **facts) -> None:
    for title, (params, accuracy) in methods.items():
        for task in names:
            for seed in range(seeds):
                method = title.lower().replace("-", "_")
                put(task, method, seed, accuracy + seed / 100, title=title, params=params, **facts)


def fill_all(put, methods=3, seeds: int = 3) -> None:
    """Store runs with curves on eight tasks of two groups, enough for every figure."""
    for method in range(methods):
        for number in range(8):
            facts = {"group": "natural" if number < 5 else "structured", "title": f"Method {method}"}
            for seed in range(seeds):
                curve = [2.0 / (epoch + 1 + method + seed) for epoch in range(4)]
                accuracy = 0.4 + 0.1 * method + 0.01 * number + 0.003 * seed * method
                seconds = 10.0 * (method + 1)
                facts |= {"loss_curve": curve, "params": 1000 * 4**method, "train_seconds": seconds}
                put(f"t{number}", f"m{method}", seed, accuracy, **facts)


METHODS = {"Linear": (0, 0.6), "LoRA": (36_864, 0.8), "SSF": (51_000, 0.78), "Full": (5_500_000, 0.7)}


def test_names_of_near_ticks_do_not_touch(store, put):
    fill(put, {"Linear": (0, 0.6), "LoRA": (73_000, 0.8)})
    with paper_style():
        (axes,) = drawn(store, "accuracy_vs_params").axes
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    assert len(boxes) == 3
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


@pytest.mark.slow
def test_figures_are_byte_identical_when_rebuilt(store, put):
    fill_all(put)
    board, runs = only_with_runs(store)
    every = Drawing(FORMATS)
    first = figures(board, runs, significance(board, runs), drawing=every)
    shuffled = runs[::-1]
    other = leaderboard(board.id, shuffled)
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": None, "savefig.dpi": 50, "axes.facecolor": "red"}):
        second = figures(other, shuffled, significance(other, shuffled), drawing=every)
    drawn = FIGURES.keys() - {"shift"}  # needs records of its own, see test_shift.py
    assert first.keys() == {f"{name}.{kind}" for name in drawn for kind in FORMATS}
    assert first == second
    assert not [name for name, data in first.items() if b"<dc:date>" in data or b"CreationDate" in data]
    assert {name.rpartition(".")[2] for name in figures(board, runs, significance(board, runs))} == {"svg"}


def test_drawing_restores_the_users_settings(store, put):
    fill(put, METHODS)
    with matplotlib.rc_context({"font.size": 20}):
        drawn(store, "accuracy_vs_params")
        assert matplotlib.rcParams["font.size"] == 20


def test_heat_map_of_many_tasks_has_page_width(store, put):
    fill(put, METHODS, names=[f"task{place}" for place in range(14)], seeds=1)
    assert drawn(store, "tasks").get_size_inches()[0] == 6.9


# Content


def drawn(store: Store, name: str):
    """Return the matplotlib figure of that name, or None."""
    with paper_style():
        return DRAW[name](*only_with_runs(store))


def test_each_ranked_method_is_drawn_and_named_once(store, put):
    fill(put, METHODS)
    put("flowers", "half", 0, 0.9, title="Half")
    figure = drawn(store, "accuracy_vs_params")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(texts) == sorted([*METHODS, "Pareto front"])
    front, others = (collection.get_offsets() for collection in figure.axes[0].collections[-2:])
    assert sorted(np.round(front[:, 1], 3)) == [60.5, 80.5]
    assert sorted(np.round(others[:, 1], 3)) == [70.5, 78.5]
    assert np.round(front[:, 0].max(), 6) == np.round(np.log10(36_864), 6)


def test_crowded_figure_names_front_and_isolated_points(store, put):
    crowd = {f"Method-{place}": (37_000 + 50 * place, 0.60 + 0.0001 * place) for place in range(20)}
    fill(put, METHODS | crowd | {"Far off": (1_000_000, 0.30)})
    axes = drawn(store, "accuracy_vs_params").axes[0]
    named = {text.get_text() for text in axes.texts} - {"Pareto front"}
    assert len(named) == NAMED
    assert named >= {*METHODS, "Far off"}
    assert sum(len(collection.get_offsets()) for collection in axes.collections[-2:]) == 25


def test_names_do_not_overlap_or_leave_the_axes(store, put):
    close = {f"Method-{place}": (30_000 + 2_000 * place, 0.80 + 0.002 * (place % 4)) for place in range(12)}
    fill(put, METHODS | close)
    figure = drawn(store, "accuracy_vs_params")
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    frame = axes.get_window_extent()
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.shrunk(0.99, 0.99).overlaps(b.shrunk(0.99, 0.99))]
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


def test_aoft_and_lora_are_named_in_a_crowd(store, put):
    crowd = {f"Method-{place}": (37_000 + 50 * place, 0.60 + 0.0001 * place) for place in range(20)}
    inside = {"LoRA": (37_110, 0.6005), "aoft_lora": (37_210, 0.6009)}
    fill(put, crowd | inside)
    named = {text.get_text() for text in drawn(store, "accuracy_vs_params").axes[0].texts}
    assert named >= set(inside)
    board, _ = only_with_runs(store)
    with paper_style():
        figure = cost.against_params(board, Drawing(methods=tuple(row["label"] for row in board.rows)))
    assert {text.get_text() for text in figure.axes[0].texts} == {*crowd, *inside, "Pareto front"}


def test_a_figure_without_title_is_lower_not_narrower(store, put):
    fill(put, METHODS)
    sizes = []
    for title in (True, False):
        with paper_style():
            svg = ElementTree.fromstring(images(DRAW["tasks"](*only_with_runs(store)), Drawing(title=title))["svg"])
        ids = {element.get("id") for element in svg.iter()}
        sizes.append([float(svg.get(side).removesuffix("pt")) for side in ("width", "height")])
        assert ("title" in ids) == title
    assert sizes[0][0] == sizes[1][0]
    assert 10 < sizes[0][1] - sizes[1][1] < 30


def test_long_heat_maps_have_one_scale_in_all_parts(store, put):
    fill(put, {f"M{place:02}": (10, 0.9 - place / 100) for place in range(60)}, seeds=1)
    board, _ = only_with_runs(store)
    with paper_style():
        first, second = (heat_map.draw(board, part) for part in pages(60))
    scales = [figure.axes[1].get_xlabel() for figure in (first, second)]
    assert scales == ["0 to 20 and more points below the task's best"] * 2
    names = [label.get_text() for figure in (first, second) for label in figure.axes[0].get_yticklabels()]
    assert names == [row["label"] for row in board.rows]
    bold = [text for text in second.axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == [], "the best of each task is in the first part"


def test_official_tasks_have_short_names(store, put):
    for method in ("lora", "ssf"):
        for name in ("dsprites_loc", "cifar"):
            put(name, method, 0, 0.5, title=method, suite="vtab1k", provenance="lossless")
    axes = drawn(store, "tasks").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["CIFAR-100", "dSpr-Loc"]


def test_zero_parameters_are_left_of_the_smallest(store, put):
    fill(put, METHODS)
    axes = drawn(store, "accuracy_vs_params").axes[0]
    labels = {label.get_text(): label.get_position()[0] for label in axes.get_xticklabels()}
    assert labels["0"] < np.log10(36_864) - 0.5
    assert labels["100k"] == 5
    assert axes.get_xlim()[0] < labels["0"]


def test_heat_map_shows_every_cell_and_the_best(store, put):
    fill(put, {"LoRA": (100, 0.8), "SSF": (100, 0.6)}, seeds=1)
    put("flowers", "half", 0, 0.7996, title="Half")
    axes = drawn(store, "tasks").axes[0]
    cells = {text.get_position(): (text.get_text(), text.get_fontweight()) for text in axes.texts}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["LoRA", "SSF", "Half"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cars", "flowers"]
    assert cells == {
        **{(0, 0): ("80.0", "bold"), (1, 0): ("80.0", "bold")},
        **{(0, 1): ("60.0", "normal"), (1, 1): ("60.0", "normal")},
        **{(0, 2): ("—", "normal"), (1, 2): ("80.0", "bold")},
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
def test_unusual_leaderboards_can_be_drawn(store, put, methods):
    fill(put, methods, seeds=1)
    for name in DRAW:
        if figure := drawn(store, name):
            with paper_style():
                ElementTree.fromstring(images(figure, REPORT)["svg"])


def test_no_cost_figure_without_a_complete_row(store, put):
    put("flowers", "lora", 0, 0.5)
    put("cars", "ssf", 0, 0.5, title="SSF")
    assert {name for name in DRAW if drawn(store, name)} == {"tasks"}


def test_single_row_has_only_curves(store, put):
    fill_all(put, methods=1)
    assert {name for name in DRAW if drawn(store, name)} == {"curves"}


def test_no_time_figure_for_several_devices(store, put, fake):
    fill(put, METHODS)
    assert drawn(store, "accuracy_vs_time")
    for task in ("flowers", "cars"):
        record = fake.record(0.7, title="Half") | {"provenance": {"device": "another"}}
        store.save(fake.spec(task, "half", 0), record, np.zeros(10, dtype=int))
    assert drawn(store, "accuracy_vs_time") is None


def test_time_is_one_seed_over_all_tasks(store, put):
    for seed in range(2):
        put("flowers", "lora", seed, 0.5, train_seconds=60.0 + 20 * seed)
        put("cars", "lora", seed, 0.5, train_seconds=130.0)
        for task in ("flowers", "cars"):
            put(task, "ssf", seed, 0.6, title="SSF", train_seconds=200.0)
    axes = drawn(store, "accuracy_vs_time").axes[0]
    assert "(min)" in axes.get_xlabel()
    minutes = [10 ** float(x) for part in axes.collections[-2:] for x in part.get_offsets()[:, 0]]
    assert sorted(minutes) == pytest.approx([200 / 60, 400 / 60])


def test_groups_show_means_and_intervals(store, put):
    values = [0.5, 0.56, 0.6]
    for seed, value in enumerate(values):
        for method, shift in (("lora", 0.0), ("ssf", 0.1)):
            put("flowers", method, seed, value + shift, title=method, group="natural")
            put("pets", method, seed, value + shift + 0.2, title=method, group="natural")
            put("count", method, seed, value, title=method, group="structured")
    natural, structured = drawn(store, "groups").axes
    assert [axes.get_title() for axes in (natural, structured)] == ["natural", "structured"]
    assert [label.get_text() for label in natural.get_yticklabels()] == ["ssf", "lora"]
    middle = 100 * (sum(values) / 3 + 0.1)
    assert natural.collections[0].get_offsets().tolist() == [
        pytest.approx([middle + 10, 0]),
        pytest.approx([middle, 1]),
    ]
    low, high = stats.t.interval(0.95, 2, loc=middle, scale=100 * stats.sem(values))
    assert natural.lines[1].get_xdata() == pytest.approx([low, high])


def test_ranks_within_the_critical_difference_are_filled(store, put):
    """Demsar's q for 3 methods is 2.343; with 8 tasks the critical difference is 2.343 sqrt(12 / 48) = 1.17."""
    fill_all(put)
    axes = drawn(store, "ranks").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Method 2", "Method 1", "Method 0"]
    points = axes.collections[-1]
    assert points.get_offsets()[:, 0].tolist() == [1, 2, 3]
    filled = [tuple(colour[:3]) != (1, 1, 1) for colour in points.get_facecolors()]
    assert filled == [True, True, False]
    band = axes.patches[0]
    assert band.get_width() == pytest.approx(2.343 * (12 / 48) ** 0.5, abs=0.002)


def test_curves_are_means_over_seeds_and_a_band(store, put):
    for method in range(6):
        for seed in range(2):
            curve = [3.0 + seed, 2.0 + seed, 1.0 + method / 10 + seed]
            put("flowers", f"m{method}", seed, 0.9 - method / 10, title=f"M{method}", loss_curve=curve)
    figure = drawn(store, "curves")
    (axes,) = figure.axes
    assert len(axes.lines) == 4
    assert [line.get_ydata()[-1] for line in axes.lines] == pytest.approx([1.5, 1.6, 1.7, 1.8])
    (band,) = axes.collections
    right = band.get_paths()[0].vertices
    assert {round(y, 6) for x, y in right if x == 100} == {1.9, 2.0}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["M0", "M1", "M2", "M3", "all others"]


def test_curves_of_different_lengths_end_together(store, put):
    put("flowers", "lora", 0, 0.5, loss_curve=[1.0, 0.5])
    put("flowers", "linear", 0, 0.4, title="Linear", loss_curve=[2.0] * 50)
    put("flowers", "ssf", 0, 0.6, title="SSF", loss_curve=[1.0])  # a point is no curve
    lora, linear = drawn(store, "curves").axes[0].lines
    assert (lora.get_xdata()[-1], linear.get_xdata()[-1]) == (100, 100)
    assert (lora.get_ydata()[-1], linear.get_ydata()[-1]) == (0.5, 2.0)
