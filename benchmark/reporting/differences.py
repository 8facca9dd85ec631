"""Differences of two rows of a leaderboard, on each task and in the mean, with intervals over seeds and images."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from ..storage.predictions import PredictionsDamaged, PredictionsMissing, load_correct
from ..storage.schema import Run
from . import stats
from .leaderboards import Leaderboard, TaskColumn
from .stats import LEAST_SEEDS, InsufficientData, Interval
from .tables import DASH, ends, signed

Row = dict[str, Any]
Cell = tuple[str, str]
"""Labels of a row and a task."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two rows on one task, or their means over all tasks; accuracies in [0, 1]."""

    task: str
    a: float | None
    """Mean over the common seeds, or over all seeds if none are common; None without runs."""
    b: float | None
    difference: float | None
    over_seeds: Interval | None
    seeds: int
    """Number of common seeds."""
    over_images: Interval | None = None
    """Over seeds and images."""
    p_values: Mapping[int, float] = field(default_factory=dict)
    """Seed -> McNemar's p over images."""
    missing: Sequence[str] = ()
    """IDs of runs whose predictions are not stored."""
    reason: str = ""
    """Why there is no result over images."""


def differences(leaderboard: Leaderboard, runs: Sequence[Run], a: Row, b: Row) -> list[Difference]:
    """Compare two rows on each task, and their means if there are several tasks."""
    found = by_seed(leaderboard, runs)
    rows = []
    for task in leaderboard.tasks:
        of_a, of_b = (found.get((row["label"], task.label), {}) for row in (a, b))
        facts: dict[str, Any] = {}
        try:
            seeds = of_a.keys() & of_b.keys()
            (bits_a, gone_a), (bits_b, gone_b) = (_correct(leaderboard, runs, row, task, seeds) for row in (a, b))
            facts = {"missing": gone_a + gone_b} if gone_a + gone_b else _over_both(bits_a, bits_b)
        except InsufficientData as error:
            facts = {"reason": str(error)}
        rows.append(Difference(task=task.label, **_over_seeds(of_a, of_b), **facts))
    if len(leaderboard.tasks) > 1:
        means = [_means(leaderboard, found, row) for row in (a, b)]
        rows.append(Difference(task=mean_of(leaderboard), **_over_seeds(*means)))
    return rows


def cells(one: Difference) -> list[str]:
    """Return the difference, its intervals over seeds and over seeds and images, and McNemar's p, as texts."""
    intervals = [DASH if interval is None else ends(interval) for interval in (one.over_seeds, one.over_images)]
    p_values = ", ".join(f"{p:.2g}" for p in one.p_values.values())
    return [DASH if one.difference is None else signed(100 * one.difference), *intervals, p_values or DASH]


def from_best(leaderboard: Leaderboard, runs: Sequence[Run]) -> dict[str, Difference]:
    """Return the difference of each other row from the first on the only task, by label; empty with several tasks."""
    best, *others = leaderboard.rows
    if len(leaderboard.tasks) > 1:
        return {}
    return {row["label"]: differences(leaderboard, runs, row, best)[0] for row in others}


def mean_of(leaderboard: Leaderboard) -> str:
    """Return the name of the mean over all tasks."""
    return f"mean of {len(leaderboard.tasks)}"


def _means(leaderboard: Leaderboard, by_seed: Mapping[Any, Mapping[int, float]], row: Row) -> dict[int, float]:
    """Return seed -> mean over the tasks, for the seeds that all tasks have."""
    tasks = [by_seed.get((row["label"], task.label), {}) for task in leaderboard.tasks]
    return {seed: fmean(task[seed] for task in tasks) for seed in set.intersection(*map(set, tasks))}


def _over_seeds(a: Mapping[int, float], b: Mapping[int, float]) -> dict[str, Any]:
    """Return the fields of `Difference` that need no predictions; a, b: seed -> accuracy."""
    shared = sorted(a.keys() & b.keys())
    means = [fmean(seeds[seed] for seed in shared or seeds) if seeds else None for seeds in (a, b)]
    each = [a[seed] - b[seed] for seed in shared]
    interval = stats.over_seeds(each) if len(each) >= LEAST_SEEDS else None
    return {
        "a": means[0],
        "b": means[1],
        "difference": fmean(each) if each else None,
        "over_seeds": interval,
        "seeds": len(shared),
    }


def _over_both(a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> dict[str, Any]:
    """Return the fields of `Difference` that need predictions; a, b: seed -> [images] bool."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise InsufficientData("the two methods have no common seed")
    p_values = {seed: stats.mcnemar(a[seed], b[seed]) for seed in seeds}
    if len({len(bits) for seed in seeds for bits in (a[seed], b[seed])}) > 1:
        raise InsufficientData("the runs were tested on different numbers of images")
    in_a, in_b = (np.stack([bits[seed] for seed in seeds]) for bits in (a, b))
    try:
        return {"over_images": stats.over_seeds_and_images(in_a, in_b), "p_values": p_values}
    except InsufficientData as error:
        return {"reason": str(error), "p_values": p_values}


def _correct(
    leaderboard: Leaderboard, runs: Sequence[Run], row: Row, task: TaskColumn, wanted: Collection[int]
) -> tuple[dict[int, np.ndarray], list[str]]:
    """Return seed -> [images] bool, True for correct predictions, and the run IDs whose predictions are not stored.

    wanted: seeds of both methods; predictions of others are not needed.

    Raises:
        InsufficientData: there is no run, a seed has two results, or predictions are invalid.
    """
    bits: dict[int, np.ndarray] = {}
    seeds, missing = set(), []
    own = [run for run in runs if run.task_id == task.task_id and leaderboard.id.row_identity(run) == row["identity"]]
    if not own:
        raise InsufficientData(f"{row['label']} was not run")
    for run in own:
        if run.spec.seed in wanted:
            if run.spec.seed in seeds:
                raise InsufficientData(
                    f"{row['label']} has two results with seed {run.spec.seed}; delete the outdated one"
                )
            seeds.add(run.spec.seed)
            try:
                bits[run.spec.seed] = load_correct(run)
            except PredictionsMissing:
                missing.append(run.run_id)
            except PredictionsDamaged as error:
                raise InsufficientData(f"{error}; make it again with `vtab-peft rerun {run.run_id}`") from None
    return bits, missing


def by_seed(entry: Leaderboard, runs: Iterable[Run]) -> dict[Cell, dict[int, float]]:
    """Return the accuracy by seed of each row and task that were run, in the leaderboard's order."""
    rows = {row["identity"]: row["label"] for row in entry.rows}
    tasks = {task.task_id: task.label for task in entry.tasks}
    found: dict[Cell, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        found[rows[entry.id.row_identity(run)], tasks[run.task_id]][run.spec.seed].append(run.accuracy)
    cells = [(row["label"], task.label) for row in entry.rows for task in entry.tasks]
    return {cell: {seed: fmean(found[cell][seed]) for seed in sorted(found[cell])} for cell in cells if cell in found}
