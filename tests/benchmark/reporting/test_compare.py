"""`vtab-peft compare`: what two rows' stored predictions support, and what is said where they support nothing."""

import argparse
import re

import numpy as np
import pytest
from scipy import stats
from vtab_peft.benchmark.reporting.compare import run

IMAGES = 200


@pytest.fixture
def fill(store, fake):
    """`fill(method, level, seeds)` stores runs with the correctness of each image; the same images are easy for all."""
    easy = np.random.default_rng(0).random(IMAGES)

    def fill(method: str, level: float, seeds: int = 3, task: str = "flowers", keep: bool = True) -> list[np.ndarray]:
        bits = [easy + 0.1 * np.random.default_rng(seed).random(IMAGES) < level for seed in range(seeds)]
        for seed, correct in enumerate(bits):
            record = fake.record(float(correct.mean()), title=method)
            spec = fake.spec(task, method, seed)
            store.put(spec, record, np.zeros(IMAGES, dtype=int), correct if keep else None)
        return bits

    return fill


def said(store, capsys, a: str = "one", b: str = "two", board: str = "") -> str:
    assert run(argparse.Namespace(results=store.root, a=a, b=b, board=board)) == 0
    return capsys.readouterr().out


def cells(text: str, task: str = "flowers") -> list[str]:
    """Of a task's line: A, B, A - B, over seeds, over seeds and images, McNemar's p."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{task} ")]
    return re.split(r" {2,}", line)[1:]


def test_a_better_method_is_found_better_and_the_reverse(store, fill, capsys):
    fill("one", 0.9)
    fill("two", 0.5)
    low, high = map(float, cells(said(store, capsys))[4].split(" to "))
    assert 0 < low < high
    assert cells(said(store, capsys, "two", "one"))[4] == f"{-high:+.1f} to {-low:+.1f}"


def test_the_interval_over_seeds_and_images_adds_scipys_over_each_as_squares(store, fill, capsys):
    differences = 100 * np.subtract(fill("one", 0.9), fill("two", 0.55), dtype=float)
    over = [stats.t.ppf(0.975, len(part) - 1) * stats.sem(part) for part in (differences.mean(1), differences.mean(0))]
    mean, half = differences.mean(), np.hypot(*over)
    assert cells(said(store, capsys))[4] == f"{mean - half:+.1f} to {mean + half:+.1f}"


def test_mcnemars_p_is_scipys_binomial_test_of_the_images_that_differ(store, fill, capsys):
    one, two = fill("one", 0.6), fill("two", 0.55)
    expected = []
    for a, b in zip(one, two, strict=True):
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        expected.append(f"{stats.binomtest(only_a, only_a + only_b).pvalue:.2g}")
    assert ", ".join(expected) in said(store, capsys)


def test_the_interval_over_seeds_is_scipys_of_the_paired_differences_and_needs_no_predictions(store, fill, capsys):
    accuracy = [[float(bits.mean()) for bits in fill(*row)] for row in (("one", 0.9, 4), ("two", 0.55, 3))]
    for path in store.root.rglob("*.npz"):
        path.unlink()
    differences = [100 * (a - b) for a, b in zip(*accuracy, strict=False)]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(differences), scale=stats.sem(differences))
    expected = [f"{100 * np.mean(row[:3]):.1f}" for row in accuracy]
    expected += [f"{np.mean(differences):+.1f}", f"{low:+.1f} to {high:+.1f}", "—", "—"]
    assert cells(said(store, capsys)) == expected


def test_the_mean_over_tasks_is_compared_within_seeds_that_every_task_has(store, fill, capsys):
    for method, level in (("one", 0.9), ("two", 0.5)):
        fill(method, level, 3, "flowers")
        fill(method, level, 2, "cars")
    (line,) = [line for line in said(store, capsys).splitlines() if line.startswith("mean of 2")]
    assert line.split()[-1] == "—", "two seeds have no interval"


def test_two_seeds_are_refused_but_tested_within_each(store, fill, capsys):
    fill("one", 0.9, seeds=2)
    fill("two", 0.5, seeds=2)
    text = said(store, capsys)
    assert "at least 3 seeds, not 2" in text
    assert "McNemar's p by seed" in text


def test_absent_predictions_are_named(store, fill, capsys):
    fill("one", 0.9)
    fill("two", 0.5)
    for path in store.root.rglob("*.npz"):
        path.unlink()
    assert "not beside its JSON" in said(store, capsys)


def test_predictions_without_correctness_are_named(store, fill, capsys):
    fill("one", 0.9)
    fill("two", 0.5, keep=False)
    assert "does not say which images are correct" in said(store, capsys)


def test_one_task_concludes_nothing_over_tasks(store, fill, capsys):
    fill("one", 0.9)
    fill("two", 0.5)
    assert "Over tasks: nothing is concluded" in said(store, capsys)


def test_a_folder_without_results_is_said_to_have_none(store):
    with pytest.raises(ValueError, match=f"there are no test results in {store.root}"):
        run(argparse.Namespace(results=store.root, a="one", b="two", board=""))


@pytest.mark.parametrize(
    ("a", "b", "board", "message"),
    [
        ("on", "two", "", "near: one"),
        ("one", "one", "", "the same row"),
        ("one", "two", "nowhere", "boards: own--"),
    ],
)
def test_bad_names_are_answered_with_what_there_is(store, fill, a, b, board, message):
    fill("one", 0.9)
    fill("two", 0.5)
    with pytest.raises(ValueError, match=message):
        run(argparse.Namespace(results=store.root, a=a, b=b, board=board))
