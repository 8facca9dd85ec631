"""Statistics of comparisons: confidence intervals, paired tests and ranks; arrays in, numbers out.

Seeds and test images are separate sources of variation: a conclusion about one task needs both, and a conclusion over
tasks takes the tasks as the sample.  Functions raise `InsufficientData` if the data cannot support a conclusion.

Three tests are implemented here: scipy's `wilcoxon(method="exact")` is wrong if differences tie, its
`friedmanchisquare` has no F form, and neither Holm's correction nor Nemenyi's difference is in scipy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from .wording import pluralize

CONFIDENCE = 0.95
ALPHA = 0.05
LEAST_SEEDS = 3
"""Fewest seeds for an interval (our choice)."""
LEAST_TASKS = 6
"""Fewest tasks: the smallest two-sided p of Wilcoxon's test with n tasks is 2^(1-n), so five cannot reach 0.05."""


TIE = 1e-9
"""Numbers in [0, 1] that differ by less are equal: means of the same accuracies in another order differ by rounding."""


class InsufficientData(ValueError):
    """The data cannot support the requested conclusion; the message states the reason."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class PairOverTasks:
    """Comparison of two methods over the same tasks."""

    a: str
    b: str
    wins: int
    """Number of tasks on which A is better."""
    ties: int
    losses: int
    p: float
    """Exact two-sided p-value of Wilcoxon's signed-rank test."""
    p_holm: float
    """p after Holm's correction over all pairs."""


@dataclass(frozen=True)
class Ranking:
    """Average ranks of methods over the same tasks, best first."""

    methods: tuple[str, ...]
    average_ranks: tuple[float, ...]
    """Average ranks; 1 is best, ties share the mean of their ranks."""
    friedman_p: float
    """p-value of Friedman's test (Iman and Davenport's F form, corrected for ties) that all methods are equal."""
    critical_difference: float
    """Nemenyi's critical difference of average ranks at `ALPHA`."""


def levels(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the place of each value among the distinct ones from 0, the lowest; values within `TIE` share a place."""
    found = np.asarray(values, dtype=float)
    order = np.argsort(found, kind="stable")
    places = np.empty(len(found), dtype=int)
    places[order] = np.cumsum(np.diff(found[order], prepend=found[order][:1]) > TIE)
    return places


def over_seeds(accuracies: Sequence[float]) -> Interval:
    """Return the mean over runs and its Student-t interval.

    Raises:
        InsufficientData: fewer than 3 runs.
    """
    n = len(accuracies)
    if n < LEAST_SEEDS:
        raise InsufficientData(f"an interval over seeds needs at least {LEAST_SEEDS} seeds, not {n}")
    return student(np.asarray(accuracies, dtype=float))


def over_images(correct: int, images: int) -> Interval:
    """Return the accuracy of one run and Wilson's score interval (Wilson, JASA 1927)."""
    if images < 1:
        raise InsufficientData("an interval over images needs at least one image")
    interval = stats.binomtest(correct, images).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(correct / images, float(interval.low), float(interval.high))


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Return the exact two-sided p-value that two runs have equal error rates (McNemar, 1947).

    correct_a, correct_b: [images] bool, with the same seed.
    """
    _same_shape(correct_a, correct_b)
    only_a = int((correct_a & ~correct_b).sum())
    only_b = int((correct_b & ~correct_a).sum())
    return 1.0 if only_a + only_b == 0 else float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def over_seeds_and_images(correct_a: np.ndarray, correct_b: np.ndarray) -> Interval:
    """Return the difference of accuracies, A minus B, on one task, with an interval over seeds and images.

    correct_a, correct_b: [seeds, images] bool, paired by seed and image.

    With s and i the half-widths of Student's intervals over the seeds and over the images, the half-width is
    sqrt(s^2 + i^2).  Its coverage is at least 95 % for any number of seeds; the bootstrap and Satterthwaite's degrees
    of freedom do not guarantee this.

    Proof: let seeds, images and their interaction be crossed normal random effects with variances a, b and e (Searle,
    Casella and McCulloch, Variance Components, 1992, chapter 4).  The mean of S x I differences has variance
    v = a/S + b/I + e/(SI).  The squared standard errors of s and i are p U and q V with p = a/S + e/(SI) and
    q = b/I + e/(SI), so p + q >= v.  U and V are independent chi-square variables over their degrees of freedom, S - 1
    and I - 1.  Let F be the distribution of a squared standard normal variable, t and u Student's quantiles.  Given U
    and V, the interval covers the truth with probability at least F((p t^2 U + q u^2 V) / (p + q)).  F is concave, so
    this is at least the mean of F(t^2 U) and F(u^2 V) with weights p and q.  The expectation of each is 95 % by the
    choice of t and u (Banerjee, Sankhya 22, 1960, 357-358).

    Raises:
        InsufficientData: fewer than 3 seeds, or a single image.
    """
    _same_shape(correct_a, correct_b)
    by_seed, by_image = (correct_a.mean(axis) - correct_b.mean(axis) for axis in (1, 0))
    if len(by_image) < 2:
        raise InsufficientData("an interval over images needs at least 2 images")
    intervals = over_seeds(list(by_seed)), student(by_image)
    mean = intervals[0].estimate
    half = math.hypot(*(interval.high - interval.estimate for interval in intervals))
    return Interval(mean, mean - half, mean + half)


def compare_over_tasks(scores: Mapping[str, Sequence[float]], alpha: float = ALPHA) -> list[PairOverTasks]:
    """Compare all pairs of methods by Wilcoxon's signed-rank test with Holm's correction (Demsar, JMLR 2006).

    scores: method -> accuracy per task, with the same order of tasks.

    Raises:
        InsufficientData: tasks are missing, or too few for any p-value to reach `alpha` after the correction.
    """
    table = _table(scores)
    pairs = list(combinations(scores, 2))
    tasks = table.shape[1]
    floor = 2.0 ** (1 - tasks) * len(pairs)
    if tasks == 1:
        raise InsufficientData(f"one task says nothing about others, and this test needs at least {LEAST_TASKS}")
    if tasks < LEAST_TASKS or floor > alpha:
        raise InsufficientData(
            f"with {pluralize(tasks, 'task')} and {pluralize(len(pairs), 'pair')} no p-value can fall below "
            f"{min(1.0, floor):.3g} after Holm's correction, so none can reach {alpha}: compare "
            f"{'more tasks' if tasks < LEAST_TASKS else 'fewer methods or more tasks'}"
        )
    rows = dict(zip(scores, table, strict=True))
    raw = [wilcoxon(rows[a] - rows[b]) for a, b in pairs]
    return [
        PairOverTasks(a, b, *wins(rows[a] - rows[b]), p, corrected)
        for (a, b), p, corrected in zip(pairs, raw, holm(raw), strict=True)
    ]


def ranking(scores: Mapping[str, Sequence[float]]) -> Ranking:
    """Return average ranks over tasks, Friedman's p-value and Nemenyi's critical difference (Demsar, JMLR 2006).

    Raises:
        InsufficientData: fewer than 3 methods or 6 tasks, or tasks are missing.
    """
    table = _table(scores)
    methods, tasks = table.shape
    if methods < 3 or tasks < LEAST_TASKS:
        raise InsufficientData(
            f"Friedman's test needs at least 3 methods and {LEAST_TASKS} tasks, not {methods} and {tasks}"
        )
    ranks = stats.rankdata([-levels(task) for task in table.T], axis=1).T
    average = ranks.mean(axis=1)
    order = np.argsort(average, kind="stable")
    names = list(scores)
    return Ranking(
        tuple(names[i] for i in order),
        tuple(float(average[i]) for i in order),
        _iman_davenport(ranks),
        critical_difference(methods, tasks),
    )


def critical_difference(methods: int, tasks: int, alpha: float = ALPHA) -> float:
    """Return Nemenyi's critical difference of average ranks (Demsar, JMLR 2006, section 3.2.2)."""
    q = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * tasks)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down correction (Scand. J. Stat. 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for position, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def student(sample: np.ndarray) -> Interval:
    """Return the mean of at least 2 values and its Student-t interval."""
    mean = float(sample.mean())
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(sample) - 1) * sample.std(ddof=1) / math.sqrt(len(sample)))
    return Interval(mean, mean - half, mean + half)


def _iman_davenport(ranks: np.ndarray) -> float:
    """Return p of Friedman's test in Iman and Davenport's F form (Comm. Stat. A9, 1980).

    ranks: [methods, tasks], k methods and n tasks.

    Friedman's chi-square is divided by 1 - sum(t^3 - t) / (n (k^3 - k)), summed over the groups of t tied methods on
    each task (Conover, Practical Nonparametric Statistics, 1999, section 5.8).

    The result is at least the smallest possible exact p, since F falls below it if tasks agree.  Under the null
    hypothesis each of the m possible orders of a task (k! without ties) is equally likely.  Permuting the methods
    keeps chi-square, so every value has at least max(m) orders.  Hence the exact p is at least max(m) / prod(m), which
    is k!^(1 - n) without ties.
    """
    k, n = ranks.shape
    ties = [np.unique(task, return_counts=True)[1] for task in ranks.T]
    correction = 1 - sum(int((t**3 - t).sum()) for t in ties) / (n * (k**3 - k))
    if correction == 0:
        return 1.0
    average = ranks.mean(axis=1)
    chi2 = 12 * n / (k * (k + 1)) * (float((average**2).sum()) - k * (k + 1) ** 2 / 4) / correction
    log_orders = [math.lgamma(k + 1) - sum(math.lgamma(size + 1) for size in t) for t in ties]
    smallest = math.exp(max(log_orders) - math.fsum(log_orders))
    rest = n * (k - 1) - chi2
    if rest <= 1e-9:
        return smallest
    return max(smallest, float(stats.f.sf((n - 1) * chi2 / rest, k - 1, (k - 1) * (n - 1))))


def wilcoxon(differences: np.ndarray) -> float:
    """Return the exact two-sided p of the signed-rank test, also with ties and zeros (Pratt's treatment of zeros).

    Under the null hypothesis all signs of the nonzero differences are equally likely; dynamic programming over the
    ranks counts the sign patterns that give each rank sum.
    """
    sizes = np.abs(differences)
    doubled = (2 * stats.rankdata(levels(sizes))[sizes > TIE]).astype(int)  # midranks are multiples of 1/2
    positive = int(doubled[differences[sizes > TIE] > 0].sum())
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return float(min(1.0, 2 * tail / ways.sum()))


def wins(differences: Sequence[float] | np.ndarray) -> tuple[int, int, int]:
    """Return how many differences are positive, zero and negative."""
    better, worse = (sum(sign * one > TIE for one in differences) for sign in (1, -1))
    return better, len(differences) - better - worse, worse


def _table(scores: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Return the scores as an array [methods, tasks]."""
    lengths = {len(row) for row in scores.values()}
    if len(lengths) != 1:
        raise InsufficientData("the methods have different numbers of tasks")
    table = np.array([list(row) for row in scores.values()], dtype=float)
    if np.isnan(table).any():
        missing = [name for name, row in zip(scores, table, strict=True) if np.isnan(row).any()]
        raise InsufficientData(f"tasks are missing for {', '.join(missing)}")
    return table


def _same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise InsufficientData(f"the two methods have different seeds or images: shapes {a.shape} and {b.shape}")
