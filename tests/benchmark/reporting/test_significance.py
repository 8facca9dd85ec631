"""What a board supports, checked against scipy and by hand; and that it says why where it supports nothing."""

import random
import re

import numpy as np
import pytest
from leaderboards import only, only_with_runs
from scipy import stats
from vtab_peft.benchmark.reporting.compare import compare
from vtab_peft.benchmark.reporting.leaderboard_id import by_leaderboard
from vtab_peft.benchmark.reporting.leaderboards import leaderboard
from vtab_peft.benchmark.reporting.significance import Significance, significance
from vtab_peft.benchmark.reporting.significance_text import summary, to_page
from vtab_peft.benchmark.reporting.stats import Interval, Ranking


def significance_of(store) -> Significance:
    return significance(*only_with_runs(store))


def fill(put, tasks: int = 8, methods: int = 3, seeds: int = 1) -> None:
    rng = random.Random(0)
    for task in range(tasks):
        for method in range(methods):
            for seed in range(seeds):
                accuracy = 0.2 + 0.05 * method + 0.01 * rng.random()
                put(f"t{task}", f"m{method}", seed, accuracy, title=f"Method {method}")


def test_intervals_over_seeds_are_scipys(store, put):
    values = [0.5, 0.6, 0.64]
    for seed, value in enumerate(values):
        put("flowers", "lora", seed, value)
    found = significance_of(store).intervals["LoRA", "flowers"]
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert isinstance(found, Interval)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_csv_interval_of_the_mean_agrees_with_scipy(store, put):
    first, second = [0.5, 0.6, 0.64], [0.2, 0.25, 0.1]
    for seed in range(3):
        put("flowers", "lora", seed, first[seed])
        put("cars", "lora", seed, second[seed])
    (row,) = only(store).rows
    means = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    low, high = stats.t.interval(0.95, 2, loc=sum(means) / 3, scale=stats.sem(means))
    assert (row["mean_low"], row["mean_high"]) == pytest.approx((low, high))


def test_an_interval_is_rounded_as_in_the_tables(store, put):
    """0.15 % falls short of it in binary."""
    for seed in range(3):
        put("flowers", "lora", seed, 0.0015)
    entry, runs = only_with_runs(store)
    assert "| LoRA | 0.2 (0.2 to 0.2) |" in to_page(entry, significance(entry, runs))


def test_two_seeds_have_no_interval_but_a_reason(store, put):
    put("flowers", "lora", 0, 0.5)
    put("flowers", "lora", 1, 0.6)
    assert "at least 3" in significance_of(store).intervals["LoRA", "flowers"]


def test_a_single_seed_of_an_official_task_has_wilsons_interval(store, put):
    """EuroSAT has 5,400 test images; the binomial interval of scipy."""
    put("eurosat", "lora", 0, 4_000 / 5_400, suite="vtab1k", provenance="lossless")
    found = significance_of(store)
    expected = stats.binomtest(4_000, 5_400).proportion_ci(method="wilson")
    interval = found.image_intervals["LoRA", "eurosat"]
    assert isinstance(interval, Interval)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx(
        (4_000 / 5_400, expected.low, expected.high)
    )


def test_accuracy_selects_between_two_test_sizes(store, put):
    """caltech101 is published with 6,084 and with 6,085 test images."""
    put("caltech101", "lora", 0, 3_000 / 6_085, suite="vtab1k", provenance="jpeg75")
    expected = stats.binomtest(3_000, 6_085).proportion_ci(method="wilson")
    assert significance_of(store).image_intervals["LoRA", "caltech101"].low == pytest.approx(expected.low, abs=1e-12)


def test_unknown_test_size_gives_a_reason(store, put):
    put("flowers", "lora", 0, 0.5)
    put("eurosat", "lora", 0, 0.123456789, suite="vtab1k", provenance="lossless")
    for board, runs in by_leaderboard(store.load_runs()[0]):
        (found,) = significance(leaderboard(board, runs), runs).image_intervals.values()
        assert "not known" in found
    for seed in range(3):
        put("flowers", "lora", seed, 0.5)
    own = next((board, runs) for board, runs in by_leaderboard(store.load_runs()[0]) if board.suite == "own")
    assert significance(leaderboard(*own), own[1]).image_intervals == {}


def test_group_interval_agrees_with_scipy(store, put):
    first, second = [0.5, 0.6, 0.64], [0.2, 0.25, 0.1]
    for seed in range(3):
        put("flowers", "lora", seed, first[seed], group="natural")
        put("pets", "lora", seed, second[seed], group="natural")
    put("count", "lora", 0, 0.3, group="structured")
    means = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    low, high = stats.t.interval(0.95, 2, loc=sum(means) / 3, scale=stats.sem(means))
    found = significance_of(store).group_intervals
    assert (found["LoRA", "natural"].low, found["LoRA", "natural"].high) == pytest.approx((low, high))
    assert "at least 3" in found["LoRA", "structured"]


def test_group_with_different_seeds_has_no_interval(store, put):
    for seed in range(4):
        put("flowers", "lora", seed, 0.5 + seed / 10, group="natural")
    for seed in range(3):
        put("pets", "lora", seed, 0.5 + seed / 10, group="natural")
        put("count", "lora", seed, 0.3, group="structured")
    assert "different seeds" in significance_of(store).group_intervals["LoRA", "natural"]


def test_equal_means_share_rank_and_win_nothing(store, put):
    """Means of other accuracies with the same sum differ in the last bit: those of 0.1, 0.2 and of 0.0, 0.3."""
    for seed, (a, b) in enumerate([(0.1, 0.0), (0.2, 0.3)]):
        put("flowers", "lora", seed, a)
        put("flowers", "ssf", seed, b, title="SSF")
    entry, runs = only_with_runs(store)
    first, second = entry.rows
    assert first["mean_tasks"] != second["mean_tasks"]
    assert [row["rank"] for row in entry.rows] == [1, 1]
    assert significance(entry, runs).wins["LoRA", "SSF"] == (0, 1, 0)
    assert significance(entry, runs).from_best["SSF"].difference == pytest.approx(0)
    text = compare(entry, runs, first, second)
    assert "0.0" in text.split()
    assert re.search(r"[+-]0\.0", text) is None


def test_methods_share_the_best_average_rank(store, put):
    for task in range(8):
        for method, accuracy in (("m0", 0.1), ("m1", 0.5), ("m2", 0.5)):
            put(f"t{task}", method, 0, accuracy, title=method)
    said = " ".join(summary(significance_of(store)).split())
    assert "m1 and m2 share the best average rank, 1.50" in said
    assert "of the other 1." in said


def test_a_method_that_always_wins_has_rank_one_and_all_wins(store, put):
    fill(put)
    found = significance_of(store)
    assert isinstance(found.ranking, Ranking)
    assert found.ranking.methods == ("Method 2", "Method 1", "Method 0")
    assert found.ranking.average_ranks == (1, 2, 3)
    assert found.wins["Method 2", "Method 0"] == (8, 0, 0)
    assert found.wins["Method 0", "Method 2"] == (0, 0, 8)
    assert {pair.p for pair in found.pairs} == {2 / 2**8}  # the floor of 8 tasks


def test_wins_are_shown_against_the_first_ten(store, put):
    fill(put, methods=13)
    entry, runs = only_with_runs(store)
    page = to_page(entry, significance(entry, runs))
    (table,) = [block for block in page.split("\n\n") if block.startswith("| method | 1 |")]
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    assert head == ["method", *map(str, range(1, 11))]
    assert len(rows) == 13
    assert rows[0] == ["1. Method 12", "—", *9 * ["8/0/0"]]
    assert rows[12] == ["13. Method 0", *10 * ["0/0/8"]]


def test_a_group_of_four_tasks_is_refused_with_the_reason(store, put):
    fill(put, tasks=4)
    found = significance_of(store)
    assert "6 tasks" in found.ranking
    assert "no p-value can fall below" in found.pairs


def test_incomplete_row_is_not_ranked_but_compared(store, put):
    fill(put)
    put("t0", "short", 0, 0.9, title="Short")
    found = significance_of(store)
    assert "Short" not in found.ranking.methods
    assert found.wins["Short", "Method 0"] == (1, 0, 0)


def test_statements_do_not_depend_on_the_order_of_runs(store, put):
    fill(put, seeds=3)
    entry, runs = only_with_runs(store)
    shuffled = runs[::-1]
    assert to_page(entry, significance(entry, runs)) == to_page(entry, significance(entry, shuffled))


def test_statements_about_one_are_about_one(store, put):
    fill(put, tasks=1, methods=1)
    said = summary(significance_of(store))
    assert "needs at least 2 methods that have all tasks, not 1." in said
    assert "Seeds: with a 95 % interval over seeds (Student's t): 0 of 1 result; with fewer than 3 seeds: 1." in said
    entry, _ = only_with_runs(store)
    assert "0 of 1 result with fewer than 3 seeds" in to_page(entry, significance_of(store))


def test_the_terminal_gets_six_lines_at_most(store, put):
    fill(put, tasks=4, methods=8)
    assert len(summary(significance_of(store)).splitlines()) <= 6


def test_images_of_own_folders_are_known(store, fake):
    """Take the number from the record, or from the predictions of records that lack it."""
    for task, facts, images in (("new", {"test_images": 40}, None), ("old", {}, 20), ("lost", {}, None)):
        record = fake.record(0.5)
        record["facts"] |= facts
        correct = None if images is None else np.arange(images) % 2 == 0
        store.save(fake.spec(task), record, np.zeros(images or 1, dtype=int), correct)
    board, runs = only_with_runs(store)
    found = significance(board, runs)
    assert found.test_images == {"lost": (), "new": (40,), "old": (20,)}
    assert {task: isinstance(found.image_intervals["LoRA", task], Interval) for task in ("new", "old", "lost")} == {
        "new": True,
        "old": True,
        "lost": False,
    }
