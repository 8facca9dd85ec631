"""Disagreement of the rows of a leaderboard for the page: a small matrix, without intervals."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import combinations
from typing import Any

import numpy as np

from ...storage.predictions import PredictionsDamaged, PredictionsMissing, load_predictions
from ...storage.schema import Run
from ..agreement import cluster
from ..leaderboards import Leaderboard

Seeds = dict[int, np.ndarray]
"""Seed -> [images] classes."""


def disagreement(entry: Leaderboard, runs: Sequence[Run]) -> dict[str, Any]:
    """Return labels in the order of a clustering, and for each row its disagreements with those before and itself.

    The numbers are means over tasks in percent of the test images, between runs with different seeds where there are
    several; with itself a row has that of two seeds, or null.  `seeds` holds the seed of each row that has only one,
    else null: two rows with the same one agree more.  Rows without the predictions of all tasks are left out.  Empty
    for fewer than two rows.
    """
    by_row: dict[Any, dict[Any, Seeds]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        with suppress(PredictionsMissing, PredictionsDamaged):
            by_row[entry.id.row_identity(run)][run.task_id][run.spec.seed] = load_predictions(run).classes
    tasks = [task.task_id for task in entry.tasks]
    found = {row["label"]: [by_row[row["identity"]].get(task, {}) for task in tasks] for row in entry.rows}
    found = {label: own for label, own in found.items() if all(own)}
    sizes = [{len(classes) for own in found.values() for classes in own[place].values()} for place in range(len(tasks))]
    if len(found) < 2 or any(len(size) > 1 for size in sizes):
        return {}
    between = {pair: _mean(found[pair[0]], found[pair[1]]) for pair in combinations(found, 2)}
    _, order = cluster(len(found), list(between.values()))
    labels = [list(found)[place] for place in order]
    percent = []
    for last, label in enumerate(labels):
        row = [between.get((label, other), between.get((other, label))) for other in labels[:last]]
        itself = _mean(found[label], found[label]) if all(len(own) > 1 for own in found[label]) else None
        percent.append([None if value is None else round(100 * value, 1) for value in (*row, itself)])
    seeds = [set().union(*found[label]) for label in labels]
    return {"labels": labels, "percent": percent, "seeds": [min(own) if len(own) == 1 else None for own in seeds]}


def _mean(a: Sequence[Seeds], b: Sequence[Seeds]) -> float:
    """Return the share of images with different classes, mean over tasks."""
    return float(np.mean([_of_task(*pair) for pair in zip(a, b, strict=True)]))


def _of_task(a: Seeds, b: Seeds) -> float:
    pairs = [(i, j) for i in a for j in b if i != j] or [(i, j) for i in a for j in b]
    return float(np.mean([(a[i] != b[j]).mean() for i, j in pairs]))
