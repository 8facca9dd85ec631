"""`vtab-peft agreement`: its measures against scikit-learn, its intervals against brute force, and what it refuses."""

import csv
import io
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from leaderboards import only_with_runs
from sklearn.metrics import cohen_kappa_score, jaccard_score
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.reporting.agreement import MEASURES, agreement, cluster, measure, sample, summarise
from vtab_peft.benchmark.reporting.agreement_text import to_csv, to_text, verdict
from vtab_peft.benchmark.reporting.stats import InsufficientData, student
from vtab_peft.benchmark.storage.predictions import Predictions, load_predictions
from vtab_peft.benchmark.storage.store import Store

CLASSES, IMAGES = 5, 80
Fill = Callable[..., None]


def draw(seed: int, images: int = IMAGES, noise: float = 0.4, truth: int = 99) -> Predictions:
    """Return predictions that are the label, or with this probability any class."""
    labels = np.random.default_rng(truth).integers(0, CLASSES, images)
    rng = np.random.default_rng(seed)
    classes = np.where(rng.random(images) < noise, rng.integers(0, CLASSES, images), labels)
    return Predictions(classes.astype("<u2"), classes == labels, None)


@pytest.fixture
def fill(store: Store, fake: Any) -> Fill:
    """`fill(method, seeds, noise, own)` stores runs; with `own` all runs of a method make its own systematic errors."""

    def fill(method: str, seeds: int = 3, noise: float = 0.3, own: float = 0.0, tasks: int = 2) -> None:
        for task in range(tasks):
            labels = np.random.default_rng(task).integers(0, CLASSES, IMAGES)
            of_method = np.random.default_rng([task, *method.encode()])
            shifted = np.where(of_method.random(IMAGES) < own, (labels + len(method)) % CLASSES, labels)
            for seed in range(seeds):
                rng = np.random.default_rng([seed, task, *method.encode()])
                classes = np.where(rng.random(IMAGES) < noise, rng.integers(0, CLASSES, IMAGES), shifted)
                correct = classes == labels
                record = fake.record(float(correct.mean()), title=method)
                store.save(fake.spec(f"task{task}", method, seed), record, classes, correct)

    return fill


def found(store: Store) -> Any:
    entry, runs = only_with_runs(store)
    return agreement(entry, runs, entry.rows)


def test_measures_equal_those_of_scikit_learn() -> None:
    a, b = draw(1), draw(2)
    values = dict(zip(MEASURES, measure(a, b)[0], strict=True))
    assert values["disagreement"] == pytest.approx((a.classes != b.classes).mean())
    assert values["kappa"] == pytest.approx(cohen_kappa_score(a.classes, b.classes))
    assert values["overlap"] == pytest.approx(jaccard_score(~a.correct, ~b.correct))
    assert values["correlation"] == pytest.approx(np.corrcoef(a.correct, b.correct)[0, 1])


def test_measures_without_an_image_are_those_of_the_rest() -> None:
    a, b = draw(1), draw(2)
    without = measure(a, b)[1]
    for image in range(IMAGES):
        rest = np.arange(IMAGES) != image
        parts = (Predictions(one.classes[rest], one.correct[rest], None) for one in (a, b))
        assert without[:, image] == pytest.approx(measure(*parts)[0])


def test_a_measure_without_a_meaning_is_nan() -> None:
    right = Predictions(np.zeros(4, "<u2"), np.ones(4, bool), None)
    assert measure(right, right)[0] == pytest.approx([0, np.nan, np.nan, np.nan], nan_ok=True)


def test_interval_adds_the_squares_of_both_jackknives() -> None:
    runs = {seed: draw(seed) for seed in range(4)}
    pairs = list(combinations(runs, 2))
    (disagreement, *_) = summarise([sample(runs, runs, pairs)])

    def mean(kept: Any, images: Any) -> float:
        part = [(runs[i].classes[images] != runs[j].classes[images]).mean() for i, j in pairs if {i, j} <= set(kept)]
        return float(np.mean(part))

    every = np.arange(IMAGES)
    value = mean(runs, every)
    by_seed = [4 * value - 3 * mean(set(runs) - {seed}, every) for seed in runs]
    by_image = [IMAGES * value - (IMAGES - 1) * mean(runs, every[every != image]) for image in every]
    halves = [student(np.array(pseudo)) for pseudo in (by_seed, by_image)]
    half = np.hypot(*(one.high - one.estimate for one in halves))
    assert (disagreement.low, disagreement.estimate) == pytest.approx((value - half, value))


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    """A seed raises or lowers the noise of all images, and an image may be hard for all seeds."""

    def draw_noisy(rng: np.random.Generator, images: int, seeds: int) -> dict[int, Predictions]:
        hard, shares = rng.beta(1, 3, images), rng.uniform(0.3, 1.0, seeds)
        wrong = rng.random((seeds, images)) < hard * shares[:, None]
        classes = np.where(wrong, rng.integers(1, CLASSES, (seeds, images)), 0).astype("<u2")
        return {seed: Predictions(own, own == 0, None) for seed, own in enumerate(classes)}

    rng = np.random.default_rng(0)
    many = draw_noisy(rng, 20_000, 60)
    truth = measure_mean(many)
    covered = np.zeros(len(MEASURES))
    for _ in range(300):
        runs = draw_noisy(rng, 200, 3)
        intervals = summarise([sample(runs, runs, list(combinations(runs, 2)))])
        covered += [one.low <= value <= one.high for one, value in zip(intervals, truth, strict=True)]
    assert (covered / 300 >= 0.95).all(), covered


def measure_mean(runs: dict[int, Predictions]) -> np.ndarray:
    return np.mean([measure(runs[i], runs[j])[0] for i, j in combinations(runs, 2)], axis=0)


def test_methods_are_compared_with_seeds_of_one_method(store: Store, fill: Fill) -> None:
    """`aa` and `bbb` make systematic errors of their own; `c` and `d` make random ones only."""
    for method, own in (("aa", 0.5), ("bbb", 0.5), ("c", 0.0), ("d", 0.0)):
        fill(method, own=own, noise=0.05)
    result = found(store)
    beyond = {(pair.a, pair.b): pair.beyond_seeds for pair in result.means if pair.a != pair.b}
    alike = next(interval for pair, interval in beyond.items() if set(pair) == {"c", "d"})
    assert alike.low < 0 < alike.high
    assert all(interval.low > 0 for pair, interval in beyond.items() if set(pair) != {"c", "d"})
    assert verdict(result).startswith("Of 6 pairs 5 disagree ")
    places = [result.labels[place] for place in result.order]
    assert abs(places.index("c") - places.index("d")) == 1
    pair = next(pair for pair in result.means if {pair.a, pair.b} == {"aa", "c"})
    runs = only_with_runs(store)[1]
    of = {(run.title, run.spec.task.name, run.spec.seed): load_predictions(run).classes for run in runs}
    apart = [(of["aa", task, seed] != of["c", task, seed]).mean() for task in ("task0", "task1") for seed in range(3)]
    assert pair.same_seed.estimate == pytest.approx(np.mean(apart))
    matrix = result.disagreement()
    assert (matrix == matrix.T).all()
    table = list(csv.DictReader(io.StringIO(to_csv(result))))
    assert len(table) == 3 * (4 + 6)
    assert {row["task"] for row in table} == {"mean of 2", "task0", "task1"}


def test_order_puts_neighbours_together() -> None:
    """Points on a line at 0, 9, 1, 10."""
    line = np.array([0.0, 9.0, 1.0, 10.0])
    tree, order = cluster(4, [abs(line[i] - line[j]) for i, j in combinations(range(4), 2)])
    assert list(line[list(order)]) in ([0, 1, 9, 10], [10, 9, 1, 0])
    assert tree[:, 2].tolist() == [1, 1, 9]
    assert cluster(2, [0.5])[1] == (0, 1)


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_few_seeds_intervals_are_over_images(store: Store, fill: Fill, seeds: int) -> None:
    fill("aa", seeds)
    fill("bbb", seeds)
    result = found(store)
    (pair,) = [pair for pair in result.means if pair.a != pair.b]
    assert (pair.beyond_seeds is None) == (seeds == 1)
    assert all(one.low < one.estimate < one.high for one in pair.measures.values())
    assert len(result.means) == (1 if seeds == 1 else 3)


def test_one_task_is_called_by_its_name(store: Store, fill: Fill) -> None:
    """A mean of one task is that task, and its tables are printed once."""
    fill("aa", tasks=1, own=0.5)
    fill("bbb", tasks=1, own=0.5)
    entry, _ = only_with_runs(store)
    text = to_text(found(store), entry, by_task=True)
    assert [text.count(part) for part in ("task0: two methods", "mean of 1", "of 0 ")] == [1, 0, 0]


def test_the_same_files_come_out_again(store: Store, fill: Fill, tmp_path: Any) -> None:
    fill("aa")
    fill("bbb", own=0.5)
    for name in ("first", "second"):
        ask = ["agreement", "--methods", "aa", "bbb", "--results", str(store.root), "--to", str(tmp_path / name)]
        assert main([*ask, "--by-task"]) == 0
    names = ["agreement.csv", "agreement.md", "agreement.pdf", "agreement.svg"]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == names
    assert all((tmp_path / "first" / n).read_bytes() == (tmp_path / "second" / n).read_bytes() for n in names)


def test_missing_predictions_and_lone_methods_are_refused(store: Store, fill: Fill) -> None:
    fill("aa")
    with pytest.raises(InsufficientData):
        found(store)
    fill("bbb")
    next(iter(store.root.rglob("*.npz"))).unlink()
    with pytest.raises(InsufficientData):
        found(store)
    assert main(["agreement", "--results", str(store.root)]) == 2
    assert main(["agreement", "--results", str(store.root), "--methods", "ccc"]) == 2


def test_predictions_of_other_seeds_are_not_needed(store: Store, fill: Fill) -> None:
    fill("one", 3)
    fill("two", 4)
    for path in store.root.rglob("*.json"):
        if store.load(path).spec.seed == 3:
            path.with_suffix(".npz").unlink()
    assert found(store).seeds == (0, 1, 2)


def test_without_a_common_seed_there_is_no_answer(store: Store, fill: Fill) -> None:
    fill("aa", 2)
    fill("bbb", 1)
    for path in store.root.rglob("*.json"):
        if store.load(path).spec.method.name == "aa" and store.load(path).spec.seed == 0:
            path.unlink()
    with pytest.raises(InsufficientData):
        found(store)
