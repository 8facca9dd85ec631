"""Statistics compared with scipy, a published example and simulations with known truth."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats import contingency_tables
from vtab_peft.benchmark.reporting.stats import (
    InsufficientData,
    compare_over_tasks,
    critical_difference,
    holm,
    levels,
    mcnemar,
    over_images,
    over_seeds,
    over_seeds_and_images,
    ranking,
    wilcoxon,
)

DEMSAR = {
    "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957],
    "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978],
    "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.975, 0.946],
    "C4.5+m+cf": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.9749, 0.970],
}
"""Demsar, JMLR 7 (2006), table 6: AUC of four variants of C4.5 on 14 data sets.  On `voting`, last but one, the paper
ranks C4.5+cf before C4.5+m+cf though both print as 0.975."""


def test_ranks_and_friedman_are_demsars() -> None:
    """Section 3.2.2: average ranks 3.143, 2.000, 2.893, 1.964; chi-square 9.28, which the paper does not correct
    for its ties, of all four on one task and of two on three.  F has 3 and 39 degrees of freedom."""
    found = ranking(DEMSAR)
    assert found.methods == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert found.average_ranks == pytest.approx((1.964, 2.000, 2.893, 3.143), abs=5e-4)
    chi2 = 9.28 / (1 - (60 + 3 * 6) / (14 * 60))
    assert found.friedman_p == pytest.approx(scipy_stats.f.sf(13 * chi2 / (42 - chi2), 3, 39), rel=5e-3)
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)


def test_friedmans_chi_square_is_scipys_where_methods_tie() -> None:
    rng = np.random.default_rng(9)
    for methods, tasks in ((3, 6), (4, 8), (10, 19)):
        scores = rng.integers(0, 4, (methods, tasks))
        chi2 = scipy_stats.friedmanchisquare(*scores).statistic
        f = (tasks - 1) * chi2 / (tasks * (methods - 1) - chi2)
        expected = scipy_stats.f.sf(f, methods - 1, (methods - 1) * (tasks - 1))
        assert ranking({str(i): list(row) for i, row in enumerate(scores)}).friedman_p == pytest.approx(expected)


@pytest.mark.parametrize(
    ("levels", "orders"),
    [((0.9, 0.8, 0.7), 6), ((0.9, 0.8, 0.8), 3), ((0.9, 0.9, 0.9), 1)],
    ids=["no ties", "two tie", "all tie"],
)
def test_full_agreement_of_six_tasks_has_the_exact_p(levels: tuple[float, ...], orders: int) -> None:
    """The exact p is the probability that five tasks have the order of the first."""
    found = ranking({str(i): [level] * 6 for i, level in enumerate(levels)})
    assert found.friedman_p == pytest.approx(orders**-5)


def test_p_of_near_agreement_is_not_below_full_agreement() -> None:
    """Swap one pair on one of six tasks for twelve methods; the F distribution alone gives 2e-70."""
    rows = np.tile(np.arange(12.0)[:, None], 6)
    rows[[0, 1], 0] = rows[[1, 0], 0]
    found = ranking({str(i): list(row) for i, row in enumerate(rows)})
    assert found.friedman_p >= math.factorial(12) ** -5.0


@pytest.mark.parametrize(
    ("methods", "alpha", "q"),
    [(2, 0.05, 1.960), (4, 0.05, 2.569), (10, 0.05, 3.164), (2, 0.10, 1.645), (10, 0.10, 2.920)],
)
def test_critical_values_match_demsars_table_5(methods: int, alpha: float, q: float) -> None:
    tasks = 19
    expected = q * (methods * (methods + 1) / (6 * tasks)) ** 0.5
    assert critical_difference(methods, tasks, alpha) == pytest.approx(expected, rel=5e-4)


def test_demsars_example_of_wilcoxons_test_is_significant() -> None:
    """Section 3.1.3: C4.5 against C4.5+m, rank sum 12 where alpha 0.05 asks for 21 or less."""
    differences = np.subtract(DEMSAR["C4.5+m"], DEMSAR["C4.5"])
    assert wilcoxon(differences) < 0.05


def test_wilcoxon_equals_scipys_without_ties() -> None:
    rng = np.random.default_rng(0)
    for n in (6, 7, 13, 19, 24):
        differences = rng.normal(0.3, 1, n)
        assert wilcoxon(differences) == pytest.approx(
            scipy_stats.wilcoxon(differences, method="exact").pvalue, rel=1e-12
        )


def test_wilcoxon_is_exact_with_ties_and_zeros() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        differences = rng.integers(-2, 4, size=9) / 10
        every_sign = scipy_stats.PermutationMethod(n_resamples=2**10)
        expected = scipy_stats.wilcoxon(differences, zero_method="pratt", method=every_sign).pvalue
        assert wilcoxon(differences) == pytest.approx(expected, rel=1e-12)


def test_differences_equal_up_to_rounding_tie() -> None:
    assert wilcoxon(np.array([0.3 - 0.2, 0.1 - 0.2, 0.5, 0.6, 0.7, 0.8])) == wilcoxon(
        np.array([0.1, -0.1, 0.5, 0.6, 0.7, 0.8])
    )


def test_wilcoxon_p_of_zero_differences_is_one() -> None:
    assert wilcoxon(np.zeros(8)) == 1.0


def test_holm_matches_a_manual_calculation() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_pairs_over_tasks_count_wins_and_correct_for_all_pairs() -> None:
    better = {"a": [0.9] * 10, "b": [0.8 - 0.01 * i for i in range(10)], "c": [0.5 - 0.02 * i for i in range(10)]}
    pairs = {(pair.a, pair.b): pair for pair in compare_over_tasks(better)}
    assert (pairs["a", "b"].wins, pairs["a", "b"].ties, pairs["a", "b"].losses) == (10, 0, 0)
    assert pairs["a", "b"].p == pytest.approx(2 / 2**10)
    assert pairs["a", "b"].p_holm == pytest.approx(3 * 2 / 2**10)


@pytest.mark.parametrize(
    ("methods", "tasks", "works"),
    [(2, 5, False), (2, 6, True), (2, 7, True), (3, 7, True), (4, 7, False), (20, 19, True)],
)
def test_too_few_tasks_for_significance_is_an_error(methods: int, tasks: int, works: bool) -> None:
    """The smallest p of 7 tasks is 2^-6 = 0.0156, enough for 3 pairs but not for 6."""
    rng = np.random.default_rng(2)
    scores = {str(i): list(rng.random(tasks)) for i in range(methods)}
    if works:
        compare_over_tasks(scores)
    else:
        with pytest.raises(InsufficientData, match=f"{tasks} tasks"):
            compare_over_tasks(scores)


def test_rounding_breaks_no_tie() -> None:
    equal = {"a": [0.1 + 0.2] * 8, "b": [0.3] * 8, "c": [0.4 - 0.1] * 8}
    found = ranking(equal)
    assert (found.average_ranks, found.friedman_p) == ((2, 2, 2), 1)
    assert {(pair.ties, pair.p) for pair in compare_over_tasks({"a": equal["a"], "b": equal["b"]})} == {(8, 1.0)}
    assert levels([0.3, 0.5, 0.1 + 0.2, 0.2]).tolist() == [1, 2, 1, 0]


def test_missing_tasks_are_an_error_naming_the_method() -> None:
    scores = {"lora": [0.5] * 8, "ssf": [0.5] * 7 + [float("nan")], "vpt": [0.4] * 8}
    for test in (compare_over_tasks, ranking):
        with pytest.raises(InsufficientData, match="ssf"):
            test(scores)


def test_two_seeds_are_an_error() -> None:
    with pytest.raises(InsufficientData, match="3 seeds"):
        over_seeds([0.5, 0.6])
    two = np.ones((2, 10), dtype=bool)
    with pytest.raises(InsufficientData, match="3 seeds"):
        over_seeds_and_images(two, two)


def test_interval_over_seeds_equals_scipys() -> None:
    values = [0.71, 0.74, 0.69, 0.73]
    found = over_seeds(values)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_wilson_interval_matches_a_published_example() -> None:
    """Newcombe, Stat. Med. 17 (1998), table I: 81 of 263 gives 0.2553 to 0.3662."""
    found = over_images(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_mcnemar_is_a_sign_test_on_differing_images() -> None:
    a = np.array([1] * 15 + [0] * 5 + [1] * 100, dtype=bool)
    b = np.array([0] * 15 + [1] * 5 + [1] * 100, dtype=bool)
    assert mcnemar(a, b) == pytest.approx(scipy_stats.binomtest(5, 20, 0.5).pvalue)
    assert mcnemar(a, a) == 1.0


@pytest.mark.parametrize(("level_a", "level_b"), [(0.7, 0.7), (0.8, 0.6), (0.99, 0.97)])
def test_mcnemar_equals_that_of_statsmodels(level_a: float, level_b: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(300) < level_a, rng.random(300) < level_b
    table = [[int((x & y).sum()) for y in (b, ~b)] for x in (a, ~a)]
    assert mcnemar(a, b) == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue)


def students(differences: np.ndarray) -> tuple[float, float]:
    found = scipy_stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    return found.low, found.high


def test_no_image_variation_gives_the_interval_over_seeds() -> None:
    by_seed = np.array([1, 0, 1, 1])
    a, b = np.repeat(by_seed[:, None] == 1, 50, axis=1), np.zeros((4, 50), dtype=bool)
    found = over_seeds_and_images(a, b)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.75, *students(by_seed)))


def test_no_seed_variation_gives_the_interval_over_images() -> None:
    by_image = np.random.default_rng(7).integers(-1, 2, size=40)
    found = over_seeds_and_images(np.tile(by_image == 1, (3, 1)), np.tile(by_image == -1, (3, 1)))
    assert (found.estimate, found.low, found.high) == pytest.approx((by_image.mean(), *students(by_image)))


def test_squares_of_the_half_widths_add_up() -> None:
    a, b = simulated(np.random.default_rng(8), 0.05, 4, 300, 0.1)
    differences = a.astype(int) - b
    halves = [np.diff(students(differences.mean(axis))).item() / 2 for axis in (1, 0)]
    found = over_seeds_and_images(a, b)
    assert (found.high - found.low) / 2 == pytest.approx((halves[0] ** 2 + halves[1] ** 2) ** 0.5)
    assert (found.low + found.high) / 2 == pytest.approx(differences.mean())


def test_single_image_is_an_error() -> None:
    one = np.ones((3, 1), dtype=bool)
    with pytest.raises(InsufficientData, match="2 images"):
        over_seeds_and_images(one, one)


def simulated(
    rng: np.random.Generator, gap: float, seeds: int, images: int, seed_sd: float
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate two methods of true accuracies 0.7 + gap and 0.7 with shared image difficulty and random seeds."""
    difficulty = rng.standard_normal(images, dtype=np.float32)
    sides = []
    for level in (0.7 + gap, 0.7):
        shift = rng.normal(0, seed_sd, (seeds, 1)).astype(np.float32)
        luck = rng.standard_normal((seeds, images), dtype=np.float32)
        threshold = scipy_stats.norm.ppf(level) * (1 + seed_sd**2) ** 0.5
        sides.append((difficulty + luck) / 2**0.5 + shift < threshold)
    return sides[0], sides[1]


SEED_SDS = [0.01, *(pytest.param(sd, marks=pytest.mark.slow) for sd in (0.0, 0.03, 0.1))]


@pytest.mark.parametrize("seed_sd", SEED_SDS)
def test_three_seeds_cover_the_truth(seed_sd: float) -> None:
    """A seed_sd of 0.01 is 0.3 points of accuracy, about the variation of 20,000 images."""
    rng = np.random.default_rng(3)
    gap, trials, covered = 0.05, 400, 0
    for _ in range(trials):
        found = over_seeds_and_images(*simulated(rng, gap, 3, 20_000, seed_sd))
        covered += found.low <= gap <= found.high
    assert covered / trials >= 0.92


@pytest.mark.parametrize("seed_sd", SEED_SDS)
def test_three_seeds_have_few_false_positives(seed_sd: float) -> None:
    rng = np.random.default_rng(4)
    trials, false = 400, 0
    for _ in range(trials):
        found = over_seeds_and_images(*simulated(rng, 0.0, 3, 20_000, seed_sd))
        false += found.low > 0 or found.high < 0
    assert false / trials <= 0.07


def test_true_difference_is_detected() -> None:
    found = over_seeds_and_images(*simulated(np.random.default_rng(5), 0.08, 5, 2000, 0.05))
    assert 0 < found.low < 0.08 < found.high


def test_wilcoxon_keeps_its_level() -> None:
    rng = np.random.default_rng(6)
    false = sum(wilcoxon(rng.normal(0, 1, 19)) < 0.05 for _ in range(600)) / 600
    assert false < 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5
