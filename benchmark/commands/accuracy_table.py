"""A small table of accuracies, for runs that are on no leaderboard."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from ..reporting.text_table import text_table
from ..storage.schema import Run


def accuracy_table(runs: Iterable[Run], decimals: int) -> str:
    """Return accuracies in percent, means over seeds: a row per method and a column per task, in the order of runs.

    Empty without runs.
    """
    found: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        found[run.spec.method.spec][f"{run.spec.task.suite}/{run.spec.task.name}"].append(100 * run.accuracy)
    tasks = list(dict.fromkeys(task for by_task in found.values() for task in by_task))
    one_suite = len({task.partition("/")[0] for task in tasks}) == 1
    header = ["method", *(task.partition("/")[2] if one_suite else task for task in tasks)]
    rows = [
        [method, *(f"{fmean(by_task[task]):.{decimals}f}" if task in by_task else "" for task in tasks)]
        for method, by_task in found.items()
    ]
    return text_table(header, rows, "l" + "r" * len(tasks)) if rows else ""
