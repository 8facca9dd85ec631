"""`vtab-peft compare`: what two rows' stored predictions support, and what is said where they support nothing."""

import argparse
import re

import numpy as np
import pytest
from leaderboards import only_with_runs
from scipy import stats
from vtab_peft.benchmark.reporting.compare import SHOWN, run
from vtab_peft.benchmark.reporting.differences import differences
from vtab_peft.benchmark.reporting.significance import significance
from vtab_peft.benchmark.reporting.significance_text import summary, to_page
from vtab_peft.benchmark.reporting.tables import ends

IMAGES = 200


@pytest.fixture
def fill(store, fake):
    """`fill(method, level, seeds)` stores runs with the correctness of each image; the same images are easy for all."""
    easy = np.random.default_rng(0).random(IMAGES)

    def fill(method: str, level: float, seeds: int = 3, task: str = "flowers", keep: bool = True) -> list[np.ndarray]:
        bits = [easy + 0.1 * np.random.default_rng(seed).random(IMAGES) < level for seed in range(seeds)]
        for seed, correct in enumerate(bits):
            record = fake.record(float(correct.mean()), title=method.partition("(")[0])
            spec = fake.spec(task, method, seed)
            store.save(spec, record, np.zeros(IMAGES, dtype=int), correct if keep else None)
        return bits

    return fill


def said(store, capsys, a: str = "one", b: str = "two", board: str = "") -> str:
    assert run(argparse.Namespace(results=store.root, a=a, b=b, board=board)) == 0
    return capsys.readouterr().out


def cells(text: str, task: str = "flowers") -> list[str]:
    """Return the cells of a task: A, B, A - B, over seeds, over seeds and images, McNemar's p."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{task} ")]
    return re.split(r" {2,}", line)[1:]


def test_better_method_has_a_positive_interval(store, fill, capsys):
    fill("one", 0.9)
    fill("two", 0.5)
    low, high = map(float, cells(said(store, capsys))[4].split(" to "))
    assert 0 < low < high
    assert cells(said(store, capsys, "two", "one"))[4] == f"{-high:+.1f} to {-low:+.1f}"


def test_one_task_gets_differences_from_the_best(store, fill):
    fill("one", 0.9)
    fill("two", 0.5)
    fill("short", 0.4, seeds=2)
    entry, runs = only_with_runs(store)
    found = significance(entry, runs)
    best, two, _ = entry.rows
    assert found.from_best["two"] == differences(entry, runs, two, best)[0]
    assert found.from_best["two"].over_images is not None
    assert found.from_best["short"].over_seeds is None
    for text in (summary(found), to_page(entry, found)):
        assert ends(found.from_best["two"].over_images) in text
        assert "--seeds 0 1 2" in text
        assert "p-value" not in text


def test_interval_over_seeds_and_images_adds_squares(store, fill, capsys):
    differences = 100 * np.subtract(fill("one", 0.9), fill("two", 0.55), dtype=float)
    over = [stats.t.ppf(0.975, len(part) - 1) * stats.sem(part) for part in (differences.mean(1), differences.mean(0))]
    mean, half = differences.mean(), np.hypot(*over)
    assert cells(said(store, capsys))[4] == f"{mean - half:+.1f} to {mean + half:+.1f}"


def test_mcnemar_p_equals_scipys_binomial_test(store, fill, capsys):
    one, two = fill("one", 0.6), fill("two", 0.55)
    expected = []
    for a, b in zip(one, two, strict=True):
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        expected.append(f"{stats.binomtest(only_a, only_a + only_b).pvalue:.2g}")
    assert ", ".join(expected) in said(store, capsys)


def test_interval_over_seeds_needs_no_predictions(store, fill, capsys):
    accuracy = [[float(bits.mean()) for bits in fill(*row)] for row in (("one", 0.9, 4), ("two", 0.55, 3))]
    for path in store.root.rglob("*.npz"):
        path.unlink()
    differences = [100 * (a - b) for a, b in zip(*accuracy, strict=False)]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(differences), scale=stats.sem(differences))
    expected = [f"{100 * np.mean(row[:3]):.1f}" for row in accuracy]
    expected += [f"{np.mean(differences):+.1f}", f"{low:+.1f} to {high:+.1f}", "—", "—"]
    assert cells(said(store, capsys)) == expected


def test_mean_over_tasks_uses_the_seeds_of_all_tasks(store, fill, capsys):
    for method, level in (("one", 0.9), ("two", 0.5)):
        fill(method, level, 3, "flowers")
        fill(method, level, 2, "cars")
    (line,) = [line for line in said(store, capsys).splitlines() if line.startswith("mean of 2")]
    assert line.split()[-1] == "—", "two seeds have no interval"


def test_two_seeds_have_only_mcnemar_p_values(store, fill, capsys):
    fill("one", 0.9, seeds=2)
    fill("two", 0.5, seeds=2)
    text = said(store, capsys)
    over_seeds, over_both, *p_values = cells(text)[3:]
    assert (over_seeds, over_both) == ("—", "—")
    assert len(p_values[0].split(", ")) == 2


def test_missing_predictions_are_named(store, fill, capsys):
    fill("one", 0.9)
    fill("two", 0.5)
    for path in store.root.rglob("*.npz"):
        path.unlink()
    names = {path.stem for path in store.root.rglob("*.json")}
    text = said(store, capsys)
    assert sum(name in text for name in names) == min(len(names), SHOWN)
    assert "vtab-peft rerun" in text


def test_predictions_of_other_seeds_are_not_needed(store, fill, capsys):
    fill("one", 0.9)
    fill("two", 0.5)
    before = cells(said(store, capsys))
    fill("two", 0.5, seeds=5)
    for path in store.root.rglob("two/*.json"):
        if store.load(path).spec.seed > 2:
            path.with_suffix(".npz").unlink()
    assert cells(said(store, capsys)) == before


def test_predictions_without_correctness_are_named(store, fill, capsys):
    fill("one", 0.9)
    fill("two", 0.5, keep=False)
    (note,) = [line for line in said(store, capsys).splitlines() if line.startswith("flowers: ")]
    assert "`correct`" in note


def test_one_task_allows_no_conclusion_over_tasks(store, fill, capsys):
    fill("one", 0.9)
    fill("two", 0.5)
    assert "Over tasks: no conclusion" in said(store, capsys)


def test_spaces_in_a_spec_mean_nothing(store, fill, capsys):
    fill("one(rank=1, alpha=2.0)", 0.9)
    fill("two", 0.5)
    assert "A = one(rank=1, alpha=2.0), B = two" in said(store, capsys, "one(rank=1,alpha=2.0)", "two")


def test_folder_without_results_is_an_error(store):
    with pytest.raises(ValueError, match=str(store.root)):
        run(argparse.Namespace(results=store.root, a="one", b="two", board=""))


@pytest.mark.parametrize(
    ("a", "b", "board", "named"),
    [
        ("on", "two", "", "similar: one"),
        ("one", "one", "", "'one'"),
        ("one", "two", "nowhere", "own--"),
    ],
)
def test_unknown_names_are_errors_with_suggestions(store, fill, a, b, board, named):
    fill("one", 0.9)
    fill("two", 0.5)
    with pytest.raises(ValueError, match=named):
        run(argparse.Namespace(results=store.root, a=a, b=b, board=board))
