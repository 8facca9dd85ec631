"""Statistics of a leaderboard: intervals over seeds or images, ranks and paired tests over tasks.

Functions of a leaderboard and its runs, without torch.  `stats.py` holds the tests themselves.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from ...datasets.task import SUITES
from ...datasets.tasks import suite_tasks
from ..storage.predictions import PredictionsDamaged, PredictionsMissing, load_correct
from ..storage.schema import Run
from .differences import Cell, Difference, by_seed, from_best
from .leaderboards import Leaderboard
from .stats import (
    LEAST_SEEDS,
    InsufficientData,
    Interval,
    PairOverTasks,
    Ranking,
    compare_over_tasks,
    over_images,
    over_seeds,
    ranking,
    wins,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Significance:
    """Statistics of one leaderboard; rows and tasks are named by their labels, accuracies are in [0, 1]."""

    ranking: Ranking | str
    """Average ranks, Friedman's p and the critical difference of the ranked rows, or why it is missing."""
    pairs: tuple[PairOverTasks, ...] | str
    """Wilcoxon's test of each pair of ranked rows, Holm-corrected over all pairs, or why it is missing."""
    wins: dict[tuple[str, str], tuple[int, int, int]]
    """(row, other row) -> number of common tasks on which the first is better, equal, worse."""
    intervals: dict[Cell, Interval | str]
    """Mean over seeds with its 95 % interval, or why it is missing; no entry if nothing was run."""
    test_images: dict[str, tuple[int, ...]]
    """Task -> possible numbers of test images; empty if not known."""
    image_intervals: dict[Cell, Interval | str]
    """Accuracy of the first seed with its 95 % interval over test images, if there are too few seeds."""
    group_intervals: dict[tuple[str, str], Interval | str]
    """(row, group) -> mean over the group's tasks with its 95 % interval over seeds, or why it is missing."""
    from_best: dict[str, Difference]
    """Other row -> its difference from the first, if there is only one task."""


def significance(entry: Leaderboard, runs: Iterable[Run]) -> Significance:
    """Compute the statistics of a leaderboard from its test runs."""
    runs = list(runs)
    scores = {row["label"]: [row[f"accuracy_{task.label}"] for task in entry.tasks] for row in entry.rows}
    complete = {row["label"]: scores[row["label"]] for row in entry.rows if row["rank"] is not None}
    seeds = by_seed(entry, runs)
    few = {cell: found for cell, found in seeds.items() if len(found) < LEAST_SEEDS}
    images = test_images(entry, runs)
    return Significance(
        ranking=_or_reason(lambda: ranking(_needs_two(complete))),
        pairs=_or_reason(lambda: tuple(compare_over_tasks(_needs_two(complete)))),
        wins={(a, b): _wins(scores[a], scores[b]) for a in scores for b in scores if a != b},
        intervals={cell: _or_reason(lambda f=found: over_seeds(list(f.values()))) for cell, found in seeds.items()},
        test_images=images,
        image_intervals={
            cell: _or_reason(lambda c=cell, f=found: _over_images(images[c[1]], f[min(f)]))
            for cell, found in few.items()
        },
        group_intervals=_group_intervals(entry, seeds),
        from_best=from_best(entry, runs),
    )


def test_images(entry: Leaderboard, runs: Iterable[Run]) -> dict[str, tuple[int, ...]]:
    """Return the possible numbers of test images of each task, by its label; empty if the number is not known.

    Records store it.  For older ones it is known of official tasks, or read from stored predictions.
    """
    by_task: dict[tuple[str, int, str], list[Run]] = defaultdict(list)
    for run in runs:
        by_task[run.task_id].append(run)
    return {task.label: _images(entry.id.suite, task.name, by_task[task.task_id]) for task in entry.tasks}


def _images(suite: str, task: str, runs: Sequence[Run]) -> tuple[int, ...]:
    if stored := {run.test_images for run in runs if run.test_images}:
        return tuple(sorted(stored))
    if suite in SUITES and task in suite_tasks(suite):
        return suite_tasks(suite)[task].sizes["test"]
    for run in runs:  # all have the same images
        with suppress(PredictionsMissing, PredictionsDamaged):
            return (len(load_correct(run)),)
    return ()


def _over_images(sizes: Sequence[int], accuracy: float) -> Interval:
    """Return Wilson's interval; the accuracy must be a whole number of correct images."""
    for images in sizes:
        correct = round(accuracy * images)
        if abs(correct / images - accuracy) < 1e-9:
            return over_images(correct, images)
    raise InsufficientData("the number of test images is not known")


def _group_intervals(entry: Leaderboard, seeds: dict[Cell, dict[int, float]]) -> dict[tuple[str, str], Interval | str]:
    found = {}
    for row in entry.rows:
        for group in entry.groups:
            parts = [seeds.get((row["label"], task.label), {}) for task in entry.tasks if task.group == group]
            found[row["label"], group] = _or_reason(lambda parts=parts: _group_interval(parts))
    return found


def _group_interval(parts: list[dict[int, float]]) -> Interval:
    """Return the interval of the mean over tasks.

    Args:
        parts: Accuracy by seed, for each task.

    Raises:
        InsufficientData: There are fewer than 3 seeds, or the tasks have different seeds.
    """
    seeds = parts[0].keys()
    if any(part.keys() != seeds for part in parts):
        raise InsufficientData("the group's tasks have different seeds")
    return over_seeds([fmean(part[seed] for part in parts) for seed in seeds])


def _or_reason(test: Callable[[], T]) -> T | str:
    try:
        return test()
    except InsufficientData as refusal:
        return str(refusal)


def _needs_two(complete: dict[str, list[float]]) -> dict[str, list[float]]:
    if len(complete) < 2:
        raise InsufficientData(f"a comparison needs at least 2 methods that have all tasks, not {len(complete)}")
    return complete


def _wins(a: list[float | None], b: list[float | None]) -> tuple[int, int, int]:
    return wins([x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None])
