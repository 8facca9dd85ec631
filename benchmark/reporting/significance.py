"""What a board's differences mean: intervals over seeds or images, ranks and pairs over tasks, or why there are none.

A pure function of a leaderboard and its runs; no torch, no files.  `stats.py` holds the tests themselves.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import pandas as pd

from ...datasets.task import SUITES
from ...datasets.tasks import suite_tasks
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
)

T = TypeVar("T")
Cell = tuple[str, str]
"""A row and a task, by their labels."""


@dataclass(frozen=True)
class Significance:
    """Of one board; rows are named by their labels, tasks by theirs.  Accuracies are in [0, 1]."""

    ranking: Ranking | str
    """Average ranks, Friedman's p and the critical difference of the ranked rows, or why there are none."""
    pairs: tuple[PairOverTasks, ...] | str
    """Every pair of ranked rows by Wilcoxon's test with Holm's correction over all of them, or why there are none."""
    wins: dict[tuple[str, str], tuple[int, int, int]]
    """(row, other row) -> tasks on which the first is better, as good, worse; of the tasks that both have."""
    intervals: dict[Cell, Interval | str]
    """Mean over seeds with its 95 % interval, or why there is none; no entry where nothing was run."""
    image_intervals: dict[Cell, Interval | str]
    """Of cells with too few seeds for that: the first seed's accuracy with its 95 % interval over test images."""
    group_intervals: dict[tuple[str, str], Interval | str]
    """(row, group) -> mean over the group's tasks with its 95 % interval over their seeds, or why there is none."""


def significance(board: Leaderboard, runs: pd.DataFrame) -> Significance:
    """What `runs`, the test runs of `board`, support."""
    scores = {row["label"]: [row[f"accuracy_{task.label}"] for task in board.tasks] for row in board.rows}
    complete = {row["label"]: scores[row["label"]] for row in board.rows if row["rank"] is not None}
    seeds = by_seed(board, runs)
    few = {cell: found for cell, found in seeds.items() if len(found) < LEAST_SEEDS}
    names = {task.label: task.name for task in board.tasks}
    return Significance(
        ranking=_or_reason(lambda: ranking(_needs_two(complete))),
        pairs=_or_reason(lambda: tuple(compare_over_tasks(_needs_two(complete)))),
        wins={(a, b): _wins(scores[a], scores[b]) for a in scores for b in scores if a != b},
        intervals={cell: _or_reason(lambda f=found: over_seeds(list(f.values()))) for cell, found in seeds.items()},
        image_intervals={
            cell: _or_reason(lambda c=cell, f=found: _over_images(board.board.suite, names[c[1]], f[min(f)]))
            for cell, found in few.items()
        },
        group_intervals=_group_intervals(board, seeds),
    )


def by_seed(board: Leaderboard, runs: pd.DataFrame) -> dict[Cell, dict[int, float]]:
    """Accuracy by seed of every cell that was run, in the board's order."""
    rows = {row["identity"]: row["label"] for row in board.rows}
    tasks = {(task.name, task.version, task.data): task.label for task in board.tasks}
    found: dict[Cell, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs.to_dict("records"):
        row = rows[board.board.row_of({str(name): value for name, value in run.items()})]
        task = tasks[run["task"], run["task_version"], run["data"]]
        found[row, task][run["seed"]].append(run["accuracy"])
    places = [(row["label"], task.label) for row in board.rows for task in board.tasks]
    return {cell: {seed: fmean(found[cell][seed]) for seed in sorted(found[cell])} for cell in places if cell in found}


def images_of(suite: str, task: str) -> tuple[int, ...]:
    """How many test images an official task may have; nothing for a folder of one's own: records do not say."""
    return suite_tasks(suite)[task].sizes["test"] if suite in SUITES and task in suite_tasks(suite) else ()


def _over_images(suite: str, task: str, accuracy: float) -> Interval:
    """Wilson's interval; the number of images is the one that the accuracy is a whole part of."""
    for images in images_of(suite, task):
        correct = round(accuracy * images)
        if abs(correct / images - accuracy) < 1e-9:
            return over_images(correct, images)
    raise InsufficientData("how many test images there were is not known")


def _group_intervals(board: Leaderboard, seeds: dict[Cell, dict[int, float]]) -> dict[tuple[str, str], Interval | str]:
    found = {}
    for row in board.rows:
        for group in board.groups:
            parts = [seeds.get((row["label"], task.label), {}) for task in board.tasks if task.group == group]
            found[row["label"], group] = _or_reason(lambda parts=parts: _group_interval(parts))
    return found


def _group_interval(parts: list[dict[int, float]]) -> Interval:
    """Of the mean over tasks.  parts: accuracy by seed of each.

    Raises:
        InsufficientData: there are fewer than 3 seeds, or the tasks have different seeds.
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
    both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    better, worse = sum(x > y for x, y in both), sum(x < y for x, y in both)
    return better, len(both) - better - worse, worse
