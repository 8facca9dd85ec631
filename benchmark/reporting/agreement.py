"""How far runs agree on the same test images: two methods, and two seeds of one method.  Predictions in, numbers out.

Two seeds of one method already differ.  So each pair of methods is compared with this baseline: `beyond_seeds` is its
disagreement minus the mean of the disagreements within both methods.

Pairs of runs have different seeds, between methods too: runs with one seed share batches and initial classifier, and
so agree more.  `same_seed` says how much more.
Half-widths of intervals come from the jackknife over seeds and over images (Efron and Stein, Ann. Stat. 9, 1981: its
variance is biased upwards), with Student's quantiles; they are combined as in
`stats.over_seeds_and_images`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ...datasets.first_of import first_of
from ..storage.predictions import Predictions, PredictionsDamaged, PredictionsMissing, load_predictions
from ..storage.schema import Run
from .leaderboards import Leaderboard, TaskColumn
from .stats import LEAST_SEEDS, InsufficientData, Interval, student

Row = dict[str, Any]
MEASURES = ("disagreement", "kappa", "overlap", "correlation")
"""disagreement: share of images with different classes.  kappa: of the classes (Cohen, Educ. Psychol. Meas. 20, 1960).
overlap: images that both get wrong, as a share of those that either gets wrong.  correlation: Pearson's, of being
wrong."""
SHOWN = 4
"""Run IDs without predictions that an error names (ours)."""


@dataclass(frozen=True)
class Sample:
    """Estimates on one task, with jackknife pseudo-values, which for a mean are the values themselves."""

    value: np.ndarray
    """[estimates], NaN where one is not defined."""
    seeds: np.ndarray
    """[estimates, seeds], no seeds where there are too few."""
    images: np.ndarray
    """[estimates, images]"""


@dataclass(frozen=True)
class Pair:
    """Agreement of two rows, or of the seeds of one row, on a task or in the mean over tasks.

    Ends of intervals are NaN where there are too few seeds or a measure is not defined.
    """

    a: str
    b: str
    task: str
    measures: Mapping[str, Interval]
    beyond_seeds: Interval | None
    """Disagreement beyond that of two seeds of one method; None for a single row, or where a row has one seed."""
    same_seed: Interval | None
    """Disagreement of runs with the same seed; None for a single row, or where `measures` are of the same seed."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of the rows of a leaderboard."""

    labels: tuple[str, ...]
    tasks: tuple[str, ...]
    means: tuple[Pair, ...]
    """Means over the tasks: the seeds of each row, then all pairs of rows."""
    by_task: tuple[Pair, ...]
    seeds: tuple[int, ...]
    """The seeds that all rows have on all tasks."""
    order: tuple[int, ...]
    """Indices of `labels`, such that rows that agree are neighbours."""
    tree: np.ndarray
    """[rows - 1, 4] scipy's linkage of the rows: average linkage of the mean disagreement."""

    def disagreement(self) -> np.ndarray:
        """Return the mean disagreements [rows, rows], on the diagonal between seeds of one row, which may be NaN."""
        found = np.full((len(self.labels),) * 2, np.nan)
        place = {label: index for index, label in enumerate(self.labels)}
        for pair in self.means:
            a, b = place[pair.a], place[pair.b]
            found[a, b] = found[b, a] = pair.measures["disagreement"].estimate
        return found


def agreement(leaderboard: Leaderboard, runs: Iterable[Run], rows: Sequence[Row]) -> Agreement:
    """Compare all pairs of rows on the tasks and seeds that all of them have.

    Raises:
        InsufficientData: there is one row, no common task or seed, or predictions are not stored or damaged.
    """
    if len(rows) < 2:
        raise InsufficientData("agreement needs at least two methods")
    tasks = [task for task in leaderboard.tasks if all(row[f"accuracy_{task.label}"] is not None for row in rows)]
    runs, seeds = of_common_seeds(leaderboard, runs, rows, tasks)
    found = {task: predictions_by_row(leaderboard, runs, rows, task) for task in tasks}
    labels = [row["label"] for row in rows]
    within: dict[tuple[str, str], list[Sample]] = {}
    for task in tasks:
        for label in labels:
            pairs = list(combinations(seeds, 2))
            within.setdefault((label, label), []).append(sample(found[task][label], found[task][label], pairs))
    between: dict[tuple[str, str], list[Sample]] = {}
    across = [(i, j) for i in seeds for j in seeds if i != j or len(seeds) == 1]
    together: dict[tuple[str, str], list[Sample]] = {}
    for a, b in combinations(labels, 2):
        between[a, b] = [sample(found[task][a], found[task][b], across) for task in tasks]
        together[a, b] = [sample(found[task][a], found[task][b], [(seed, seed) for seed in seeds]) for task in tasks]
    several = len(seeds) > 1
    groups: list[tuple[tuple[str, str], list[list[Sample]]]] = [
        (pair, [own]) for pair, own in within.items() if several
    ]
    for (a, b), own in between.items():
        beyond = list(map(_beyond, own, within[a, a], within[b, b]))
        groups.append(((a, b), [own, beyond, together[a, b]] if several else [own]))
    tree, order = cluster(len(labels), [summarise(own)[0].estimate for own in between.values()])
    return Agreement(
        labels=tuple(labels),
        tasks=tuple(task.label for task in tasks),
        means=tuple(_pair(pair, mean_of(tasks), parts) for pair, parts in groups),
        by_task=tuple(
            _pair(pair, task.label, [part[place : place + 1] for part in parts])
            for place, task in enumerate(tasks)
            for pair, parts in groups
        ),
        seeds=seeds,
        order=order,
        tree=tree,
    )


def mean_of(tasks: Sequence[Any]) -> str:
    """Return the name of the mean over the tasks."""
    return f"mean of {len(tasks)}"


def of_common_seeds(
    leaderboard: Leaderboard, runs: Iterable[Run], rows: Sequence[Row], tasks: Sequence[TaskColumn]
) -> tuple[list[Run], tuple[int, ...]]:
    """Return the runs of the rows and tasks with the seeds that all have, and these seeds.

    Predictions of other runs are not needed.

    Raises:
        InsufficientData: there are no common tasks or seeds.
    """
    found: dict[tuple[Any, ...], dict[int, None]] = {
        (row["identity"], task.task_id): {} for row in rows for task in tasks
    }
    own = [run for run in runs if (leaderboard.id.row_identity(run), run.task_id) in found]
    for run in own:
        found[leaderboard.id.row_identity(run), run.task_id][run.spec.seed] = None
    seeds = common_seeds(found.values())
    return [run for run in own if run.spec.seed in seeds], seeds


def predictions_by_row(
    leaderboard: Leaderboard, runs: Iterable[Run], rows: Sequence[Row], task: TaskColumn
) -> dict[str, dict[int, Predictions]]:
    """Return label -> seed -> predictions of the rows on a task.

    Raises:
        InsufficientData: predictions are not stored or damaged, or a seed has two results.
    """
    labels = {row["identity"]: row["label"] for row in rows}
    found: dict[str, dict[int, Predictions]] = {label: {} for label in labels.values()}
    missing: list[str] = []
    for run in runs:
        label = labels.get(leaderboard.id.row_identity(run))
        if run.task_id != task.task_id or label is None:
            continue
        if run.spec.seed in found[label]:
            raise InsufficientData(f"{label} has two results with seed {run.spec.seed}; delete the outdated one")
        try:
            found[label][run.spec.seed] = load_predictions(run)
        except PredictionsMissing:
            missing.append(run.run_id)
        except PredictionsDamaged as error:
            raise InsufficientData(f"{error}; make it again with `vtab-peft rerun {run.run_id}`") from None
    if missing:
        raise InsufficientData(
            f"the predictions of {first_of(missing, SHOWN)} are not stored ({task.label}); restore those of a "
            "run with `vtab-peft rerun RUN_ID`"
        )
    return found


def common_seeds(by_seed: Iterable[Mapping[int, Any]]) -> tuple[int, ...]:
    """Return the seeds that all have, sorted; raise `InsufficientData` if there are none."""
    every = [set(own) for own in by_seed]
    if not every:
        raise InsufficientData("the methods have no common task")
    if not (seeds := set.intersection(*every)):
        raise InsufficientData("the methods have no common seed on all their common tasks")
    return tuple(sorted(seeds))


def sample(a: Mapping[int, Predictions], b: Mapping[int, Predictions], pairs: Sequence[tuple[int, int]]) -> Sample:
    """Return the mean over pairs of seeds (of a, of b) with pseudo-values; NaN for no pairs."""
    images = len(next(iter(a.values())).classes)
    if any(len(one.classes) != images for own in (a, b) for one in own.values()):
        raise InsufficientData("the runs were tested on different numbers of images")
    seeds = sorted({seed for pair in pairs for seed in pair})
    if not pairs:
        return Sample(*(np.full((len(MEASURES), *shape), np.nan) for shape in ((), (0,), (images,))))
    each = [measure(a[i], b[j]) for i, j in pairs]
    values, without = (np.stack([one[part] for one in each]) for part in (0, 1))
    value = values.mean(0)
    pseudo = []
    for seed in seeds if len(seeds) >= LEAST_SEEDS else ():
        rest = [place for place, pair in enumerate(pairs) if seed not in pair]
        pseudo.append(len(seeds) * value - (len(seeds) - 1) * values[rest].mean(0))
    by_seed = np.stack(pseudo, axis=1) if pseudo else np.empty((len(MEASURES), 0))
    return Sample(value, by_seed, images * value[:, None] - (images - 1) * without.mean(0))


def measure(a: Predictions, b: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the measures [measures] of two runs, and those without each image [measures, images]."""
    n, wrong_a, wrong_b = len(a.classes), ~a.correct, ~b.correct
    counts = [a.classes == b.classes, wrong_a & wrong_b, wrong_a | wrong_b, wrong_a, wrong_b]
    of_image = np.array(counts, dtype=float)
    size = int(max(a.classes.max(initial=0), b.classes.max(initial=0))) + 1
    of_a, of_b = (np.bincount(one.classes, minlength=size).astype(float) for one in (a, b))
    chance = float(of_a @ of_b)
    without = chance - of_b[a.classes] - of_a[b.classes] + of_image[0]  # one image less in both counts
    total = of_image.sum(axis=1)
    return _formulas(n, total, chance), _formulas(n - 1, total[:, None] - of_image, without)


def _formulas(n: int, counts: np.ndarray, chance: Any) -> np.ndarray:
    """Return the measures; counts: [5, ...] same class, both wrong, either wrong, a wrong, b wrong of n images.

    chance: sum over classes of the products of how often a and b predict them.
    """
    same, both, either, wrong_a, wrong_b = counts
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = chance / n**2
        spread = np.sqrt(wrong_a * (n - wrong_a) * wrong_b * (n - wrong_b))
        correlation = (n * both - wrong_a * wrong_b) / spread
        found = [1 - same / n, (same / n - expected) / (1 - expected), both / either, correlation]
    return np.where(np.isfinite(found), found, np.nan)


def _beyond(between: Sample, a: Sample, b: Sample) -> Sample:
    parts = ((getattr(one, name) for one in (between, a, b)) for name in ("value", "seeds", "images"))
    return Sample(*(pair - (own_a + own_b) / 2 for pair, own_a, own_b in parts))


def summarise(samples: Sequence[Sample]) -> list[Interval]:
    """Return the mean over tasks of each estimate with its interval over seeds and images, or images for 1 or 2 seeds.

    Tasks have their own images and share the seeds.
    """
    found = []
    for place in range(len(samples[0].value)):
        value = float(np.mean([one.value[place] for one in samples]))
        over_images = math.hypot(*(_half(one.images[place]) for one in samples)) / len(samples)
        half = math.hypot(_half(np.mean([one.seeds[place] for one in samples], axis=0)), over_images)
        found.append(Interval(value, value - half, value + half))
    return found


def _half(pseudo: np.ndarray) -> float:
    """Return the half-width of Student's interval; 0 without values, NaN if one is not defined."""
    interval = student(pseudo) if len(pseudo) > 1 else Interval(0.0, 0.0, 0.0)
    return interval.high - interval.estimate


def _pair(pair: tuple[str, str], task: str, parts: Sequence[Sequence[Sample]]) -> Pair:
    """Return the pair of samples over tasks: of its measures, beyond seeds, and of the same seed."""
    measures, *more = map(summarise, parts)
    beyond, same = (more[0][0], more[1][0]) if more else (None, None)
    return Pair(*pair, task, dict(zip(MEASURES, measures, strict=True)), beyond, same)


def cluster(rows: int, distances: Sequence[float]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return scipy's average linkage of the distances (condensed, pairs in order), and its optimal order of leaves."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    tree = linkage(np.asarray(distances), "average", optimal_ordering=rows > 2)
    return tree, tuple(int(leaf) for leaf in leaves_list(tree))
