"""What a comparison may conclude: intervals, paired tests, ranks.  Arrays in, numbers out; no torch, no files.

Two kinds of chance are told apart.  Seeds: another run of the same cell gives another number.  Images: another test
set would.  Conclusions about a method on a task need both; conclusions over tasks take the tasks as the sample.
What the data cannot support is refused with the reason (`InsufficientData`) instead of being printed as a number.
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
"""Ours: below three runs a standard deviation is a guess."""
LEAST_TASKS = 6
"""With n tasks the smallest two-sided p of Wilcoxon's test is 2^(1-n); five tasks cannot reach 0.05."""


class InsufficientData(ValueError):
    """The data cannot support the conclusion asked for; the message says why."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class PairOverTasks:
    """Two methods over the same tasks."""

    a: str
    b: str
    wins: int
    """Tasks on which A is better."""
    ties: int
    losses: int
    p: float
    """Of Wilcoxon's signed-rank test, two-sided, exact."""
    p_holm: float
    """The same after Holm's correction over all pairs."""


@dataclass(frozen=True)
class Ranking:
    """Methods over the same tasks, best first."""

    methods: tuple[str, ...]
    average_ranks: tuple[float, ...]
    """1 is best; ties share the mean of their places."""
    friedman_p: float
    """Of Iman and Davenport's F form of Friedman's test, corrected for ties: that all methods are alike."""
    critical_difference: float
    """Nemenyi's, in average ranks, at `ALPHA`."""


def over_seeds(accuracies: Sequence[float]) -> Interval:
    """Mean over runs and its Student-t interval.

    Raises:
        InsufficientData: fewer than 3 runs.
    """
    n = len(accuracies)
    if n < LEAST_SEEDS:
        raise InsufficientData(f"an interval over seeds needs at least {LEAST_SEEDS} of them, not {n}")
    return _student(np.asarray(accuracies, dtype=float))


def over_images(correct: int, images: int) -> Interval:
    """Accuracy of one run and Wilson's score interval (Wilson, JASA 1927)."""
    if images < 1:
        raise InsufficientData("an interval over images needs at least one image")
    found = stats.binomtest(correct, images).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(correct / images, float(found.low), float(found.high))


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided p that two runs with the same seed err equally often.  [images] bool each (McNemar, 1947)."""
    _same_shape(correct_a, correct_b)
    only_a = int((correct_a & ~correct_b).sum())
    only_b = int((correct_b & ~correct_a).sum())
    return 1.0 if only_a + only_b == 0 else float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def over_seeds_and_images(correct_a: np.ndarray, correct_b: np.ndarray) -> Interval:
    """A's accuracy minus B's on one task, and how far other seeds and other images may move it.

    [seeds, images] bool each, paired in both.  With s and i the half-widths of Student's intervals of the difference
    over the seeds and over the images, the half-width is sqrt(s^2 + i^2): never narrower than either.

    It covers at least 95 %, however few the seeds and however large their part in it; the bootstrap does not, nor do
    Satterthwaite's degrees of freedom.  Why: let seeds, images and their interaction be crossed random effects, normal,
    with variances a, b and e (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4).  The mean of S x I
    differences has variance a/S + b/I + e/(SI).  The squared standard errors behind s and i are p U and q V, where
    p = a/S + e/(SI) and q = b/I + e/(SI) are together no less than that variance, and U and V independent, chi-square
    over their degrees of freedom, S - 1 and I - 1.  So the mean is off by s^2 + i^2 or less, squared, with probability
    F((p t^2 U + q u^2 V) / (p + q)) or more, given U and V; F is the distribution of a squared standard normal, t and u
    are Student's quantiles.  F is concave, hence that is no less than the mean, with weights p and q, of F(t^2 U) and
    F(u^2 V); and these expect 95 % each, which is what t and u are chosen for (Banerjee, Sankhya 22, 1960, 357-358).

    Raises:
        InsufficientData: fewer than 3 seeds, or a single image.
    """
    _same_shape(correct_a, correct_b)
    of_seeds, of_images = (correct_a.mean(axis) - correct_b.mean(axis) for axis in (1, 0))
    if len(of_images) < 2:
        raise InsufficientData("an interval over images needs at least 2 of them")
    parts = over_seeds(list(of_seeds)), _student(of_images)
    mean = parts[0].estimate
    half = math.hypot(*(part.high - part.estimate for part in parts))
    return Interval(mean, mean - half, mean + half)


def compare_over_tasks(scores: Mapping[str, Sequence[float]], alpha: float = ALPHA) -> list[PairOverTasks]:
    """All pairs of methods by Wilcoxon's signed-rank test over tasks, with Holm's correction (Demsar, JMLR 2006).

    scores: method -> accuracy per task, in one order of tasks.

    Raises:
        InsufficientData: tasks are missing, or so few that no difference could reach `alpha` after the correction.
    """
    table = _table(scores)
    pairs = list(combinations(scores, 2))
    tasks = table.shape[1]
    floor = 2.0 ** (1 - tasks) * len(pairs)
    if tasks < LEAST_TASKS or floor > alpha:
        raise InsufficientData(
            f"with {pluralize(tasks, 'task')} and {pluralize(len(pairs), 'pair')} no p-value can fall below "
            f"{min(1.0, floor):.3g} after Holm's correction, so none can reach {alpha}: compare fewer methods or more "
            "tasks"
        )
    rows = dict(zip(scores, table, strict=True))
    raw = [wilcoxon(rows[a] - rows[b]) for a, b in pairs]
    return [
        PairOverTasks(a, b, *_wins(rows[a] - rows[b]), p, corrected)
        for (a, b), p, corrected in zip(pairs, raw, holm(raw), strict=True)
    ]


def ranking(scores: Mapping[str, Sequence[float]]) -> Ranking:
    """Average ranks over tasks, Friedman's test and Nemenyi's critical difference (Demsar, JMLR 2006).

    Raises:
        InsufficientData: fewer than 3 methods or 6 tasks, or tasks are missing.
    """
    table = _table(scores)
    methods, tasks = table.shape
    if methods < 3 or tasks < LEAST_TASKS:
        raise InsufficientData(
            f"Friedman's test needs at least 3 methods and {LEAST_TASKS} tasks, not {methods} and {tasks}"
        )
    ranks = stats.rankdata(-table, axis=0)
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
    """Nemenyi's: average ranks that differ by more are different at `alpha`.  Demsar, JMLR 2006, section 3.2.2."""
    q = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * tasks)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scand. J. Stat. 1979): adjusted p-values in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _student(sample: np.ndarray) -> Interval:
    """Mean of a sample of 2 or more and its Student-t interval."""
    mean = float(sample.mean())
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(sample) - 1) * sample.std(ddof=1) / math.sqrt(len(sample)))
    return Interval(mean, mean - half, mean + half)


def _iman_davenport(ranks: np.ndarray) -> float:
    """p of Friedman's test in Iman and Davenport's F form (Comm. Stat. A9, 1980).  ranks: [methods, tasks].

    Friedman's chi-square is divided by 1 - sum(t^3 - t) / (n (k^3 - k)), over the ties of t of the k methods on each
    of the n tasks (Conover, Practical Nonparametric Statistics, 1999, section 5.8).

    p is never below the least that an exact one could be, as F is where tasks agree.  Methods that are alike take each
    of the m orders of a task, k! without ties, equally often.  Renaming them leaves chi-square as it is and gives as
    many cases as one task has orders, or more; so the exact p is the largest m over the product of all m, or more:
    k!^(1 - n) without ties.
    """
    k, n = ranks.shape
    ties = [np.unique(task, return_counts=True)[1] for task in ranks.T]
    untied = 1 - sum(int((t**3 - t).sum()) for t in ties) / (n * (k**3 - k))
    if untied == 0:
        return 1.0
    average = ranks.mean(axis=1)
    chi2 = 12 * n / (k * (k + 1)) * (float((average**2).sum()) - k * (k + 1) ** 2 / 4) / untied
    orders = [math.lgamma(k + 1) - sum(math.lgamma(size + 1) for size in t) for t in ties]  # logarithms
    least = math.exp(max(orders) - math.fsum(orders))
    room = n * (k - 1) - chi2
    return least if room <= 1e-9 else max(least, float(stats.f.sf((n - 1) * chi2 / room, k - 1, (k - 1) * (n - 1))))


def wilcoxon(differences: np.ndarray) -> float:
    """Exact two-sided p of the signed-rank test, whatever ties and zeros there are (Pratt's treatment of zeros).

    Given the sizes of the differences, each sign is a fair coin under the null hypothesis; the distribution of the
    rank sum is counted by adding one rank after the other.  Tables round it to normal where sizes tie.
    """
    sizes = np.abs(differences).round(12)  # so that 0.3 - 0.2 and 0.2 - 0.1 tie
    doubled = (2 * stats.rankdata(sizes)[sizes > 0]).astype(int)  # midranks are halves
    positive = int(doubled[differences[sizes > 0] > 0].sum())
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return float(min(1.0, 2 * tail / ways.sum()))


def _wins(differences: np.ndarray) -> tuple[int, int, int]:
    return int((differences > 0).sum()), int((differences == 0).sum()), int((differences < 0).sum())


def _table(scores: Mapping[str, Sequence[float]]) -> np.ndarray:
    """[methods, tasks]."""
    lengths = {len(row) for row in scores.values()}
    if len(lengths) != 1:
        raise InsufficientData("the methods were not run on the same number of tasks")
    table = np.array([list(row) for row in scores.values()], dtype=float)
    if np.isnan(table).any():
        missing = [name for name, row in zip(scores, table, strict=True) if np.isnan(row).any()]
        raise InsufficientData(f"tasks are missing for {', '.join(missing)}")
    return table


def _same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise InsufficientData(
            f"the two methods were not run on the same seeds and images: {a.shape} against {b.shape}"
        )
