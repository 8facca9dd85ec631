"""What a board's differences mean: intervals over seeds, ranks and pairs over tasks, or the reason there are none.

A pure function of a leaderboard and its runs; no torch, no files.  `stats.py` holds the tests themselves.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from .boards import Leaderboard
from .stats import Interval, PairOverTasks, Ranking, Unsupported, compare_over_tasks, over_seeds, ranking

T = TypeVar("T")


@dataclass(frozen=True)
class Significance:
    """Of one board; rows are named by their labels, tasks by theirs.  Accuracies are in [0, 1]."""

    ranking: Ranking | str
    """Average ranks, Friedman's p and the critical difference of the ranked rows, or why there are none."""
    pairs: tuple[PairOverTasks, ...] | str
    """Every pair of ranked rows by Wilcoxon's test with Holm's correction over all of them, or why there are none."""
    wins: dict[tuple[str, str], tuple[int, int, int]]
    """(row, other row) -> tasks on which the first is better, as good, worse; of the tasks that both have."""
    intervals: dict[tuple[str, str], Interval | str]
    """(row, task) -> mean over seeds with its 95 % interval, or why there is none; no entry where nothing was run."""


def significance(board: Leaderboard, runs: pd.DataFrame) -> Significance:
    """What `runs`, the test runs of `board`, support."""
    scores = {row["label"]: [row[f"accuracy_{task.label}"] for task in board.tasks] for row in board.rows}
    complete = {row["label"]: scores[row["label"]] for row in board.rows if row["rank"] is not None}
    return Significance(
        ranking=_or_reason(lambda: ranking(_needs_two(complete))),
        pairs=_or_reason(lambda: tuple(compare_over_tasks(_needs_two(complete)))),
        wins={(a, b): _wins(scores[a], scores[b]) for a in scores for b in scores if a != b},
        intervals=_intervals(board, runs),
    )


def _intervals(board: Leaderboard, runs: pd.DataFrame) -> dict[tuple[str, str], Interval | str]:
    rows = {row["identity"]: row["label"] for row in board.rows}
    tasks = {(task.name, task.version, task.data): task.label for task in board.tasks}
    seeds: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs.to_dict("records"):
        row = rows[board.board.row_of({str(name): value for name, value in run.items()})]
        task = tasks[run["task"], run["task_version"], run["data"]]
        seeds[row, task][run["seed"]].append(run["accuracy"])
    of_seed = {
        cell: [sum(sorted(found)) / len(found) for _, found in sorted(by_seed.items())]
        for cell, by_seed in seeds.items()
    }
    places = [(row["label"], task.label) for row in board.rows for task in board.tasks]
    return {cell: _or_reason(lambda cell=cell: over_seeds(of_seed[cell])) for cell in places if cell in of_seed}


def _or_reason(test: Callable[[], T]) -> T | str:
    try:
        return test()
    except Unsupported as refusal:
        return str(refusal)


def _needs_two(complete: dict[str, list[float]]) -> dict[str, list[float]]:
    if len(complete) < 2:
        raise Unsupported(f"a comparison needs at least 2 methods that have all tasks, there are {len(complete)}")
    return complete


def _wins(a: list[float | None], b: list[float | None]) -> tuple[int, int, int]:
    both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    better, worse = sum(x > y for x, y in both), sum(x < y for x, y in both)
    return better, len(both) - better - worse, worse
