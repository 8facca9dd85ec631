"""The leaderboard of a board: its tasks as columns, what is averaged, and who ranks where.

A pure function of the runs: no torch, no clock, no dependence on the order of files (`fmean` is exactly rounded, so a
mean has no order either).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from ..spec import fingerprint
from .boards import IDENTITY, VTAB_GROUPS, Board, Run, one_line, records, table_order
from .stats import LEAST_SEEDS, over_seeds
from .wording import pluralize


@dataclass(frozen=True)
class TaskColumn:
    """A task as a column: the name with the very data it stands for."""

    name: str
    version: int
    data: str
    group: str
    label: str
    """The name; `name@jpeg75` where the data are not of the board's provenance; `name@ab12cd` where a board holds one
    name with several data hashes or versions."""


@dataclass(frozen=True)
class Leaderboard:
    """A board with its rows in order; accuracies in [0, 1], None where there is none."""

    board: Board
    tasks: tuple[TaskColumn, ...]
    groups: tuple[str, ...]
    """In order; empty when all tasks are of one group."""
    common: tuple[TaskColumn, ...]
    """The tasks, two or more, that every row has, where some row lacks another: `mean_common` is over these."""
    rows: tuple[dict[str, Any], ...]
    """One per method, best first: `columns`; `label`, a short name that no other row has; `identity`; `devices`; and
    `train_seconds`, the sum over tasks of the mean over seeds."""

    @property
    def columns(self) -> list[str]:
        """Of `leaderboard.csv`; docs/results.md describes each."""
        special = {"vtab1k": ["mean_19", "mean_groups"], "fgvc": ["mean_5"]}.get(self.board.suite, [])
        return [
            *("rank", "method", "spec", "backbone", "lr", "trainable_params", "trainable_params_with_head"),
            *(f"accuracy_{task.label}" for task in self.tasks),
            *(f"group_{group}" for group in self.groups),
            *("mean_tasks", *special, "std_over_seeds", "mean_low", "mean_high"),
            *(["mean_common"] if self.common else []),
            *("seconds", "device", "peak_memory_mb", "seeds", "recipe", "backbone_sha256"),
            *("method_version", "plugin", "args"),
            *(["configurations"] if self.board.tuned else []),
            *(["oracle_mean_tasks"] if self.has_oracle else []),
        ]

    @property
    def tuning(self) -> str:
        """How the settings came about."""
        tried = max((row["configurations"] or 0 for row in self.rows), default=0)
        if not self.board.tuned:
            return "untuned"
        return f"tuned: best of {tried} per task on val200" if tried else "settings per task as published"

    @property
    def has_oracle(self) -> bool:
        return any(row["oracle_mean_tasks"] is not None for row in self.rows)

    @property
    def seeds(self) -> str:
        """`3 seeds`, or `1 to 3 seeds` where rows differ."""
        counts = [row["seeds"] for row in self.rows]
        low, high = min(counts), max(counts)
        return f"{low} to {high} seeds" if low != high else pluralize(low, "seed")


def leaderboard(board: Board, runs: pd.DataFrame) -> Leaderboard:
    """Rows of a board, best first; rows that lack a task are unranked and last, by their mean over what all have."""
    every = records(runs)
    tasks = _task_columns(board, every)
    present = {task.group for task in tasks}
    groups = [group for group in VTAB_GROUPS if group in present] + sorted(present - set(VTAB_GROUPS))
    groups = groups if len(groups) > 1 else []
    by_method: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in every:
        by_method[board.row_of(run)].append(run)
    rows: list[dict[str, Any]] = [
        _row(board, tasks, groups, part) | {"identity": identity} for identity, part in by_method.items()
    ]
    for row, label in zip(rows, _method_labels(rows), strict=True):
        row["label"] = label
    means = [row["mean_tasks"] for row in rows if row["mean_tasks"] is not None]
    for row in rows:
        own = row["mean_tasks"]
        row["rank"] = None if own is None else 1 + sum(mean > own for mean in means)
    common = tuple(task for task in tasks if all(row[f"accuracy_{task.label}"] is not None for row in rows))
    common = common if 1 < len(common) < len(tasks) else ()
    for row in rows:
        row["mean_common"] = _mean(row[f"accuracy_{task.label}"] for task in common)
    unranked = len(rows) + 1
    ordered = sorted(
        rows, key=lambda row: (row["rank"] or unranked, -(row["mean_common"] or 0), row["spec"], row["label"])
    )
    return Leaderboard(board, tuple(tasks), tuple(groups), common, tuple(ordered))


def _row(board: Board, tasks: Sequence[TaskColumn], groups: Sequence[str], runs: list[Run]) -> dict[str, Any]:
    """What a method did on a board; means and sums over tasks are blank unless it has all of the board's tasks."""
    by_task = {task: [run for run in runs if _identity(run) == (task.name, task.version, task.data)] for task in tasks}
    accuracy = {task: _mean(run["accuracy"] for run in part) for task, part in by_task.items()}
    done = [part for part in by_task.values() if part]
    complete = len(done) == len(tasks)
    without = fmean(fmean(run["trainable_params"] for run in part) for part in done)
    head = fmean(fmean(run["head_params"] for run in part) for part in done)
    seconds = [fmean(run["train_seconds"] + run["eval_seconds"] for run in part) for part in done]
    devices = sorted({one_line(run["device"]) for run in runs if run["device"]})
    first = runs[0]
    return {
        **{name: _shared(runs, name) for name in (*IDENTITY, "backbone", "recipe", "backbone_sha256")},
        "spec": first["asked"],
        "configurations": None if (tried := _shared(runs, "configurations")) is None else int(tried),
        "method": one_line(first["title"]),
        "trainable_params": round(without),
        "trainable_params_with_head": round(without + head),
        **{f"accuracy_{task.label}": value for task, value in accuracy.items()},
        **{f"group_{name}": _mean(accuracy[task] for task in tasks if task.group == name) for name in groups},
        "mean_tasks": _mean(accuracy.values()),
        **_suite_means(board.suite, {task: value for task, value in accuracy.items() if value is not None}),
        **_over_seeds(list(by_task.values()) if complete else []),
        "seconds": fsum(seconds) if complete else None,
        "train_seconds": fsum(fmean(run["train_seconds"] for run in part) for part in done) if complete else None,
        "devices": devices,
        "device": "; ".join(devices),
        "peak_memory_mb": max(run["peak_bytes"] for run in runs) / 1e6,
        "seeds": min(len({run["seed"] for run in part}) for part in done),
        "oracle_mean_tasks": _mean(_mean(run["oracle_accuracy"] for run in part) for part in by_task.values()),
    }


def _shared(runs: Sequence[Run], name: str) -> Any:
    """What all runs have; None where they differ, as the settings of a tuned row do from task to task."""
    return runs[0][name] if len({run[name] for run in runs}) == 1 else None


def _suite_means(suite: str, accuracy: dict[TaskColumn, float]) -> dict[str, float | None]:
    """The means that only a complete row of an official suite has: every task of the suite, each once."""
    whole = sorted(task.name for task in accuracy) == sorted(table_order(suite))
    mean = _mean(accuracy.values()) if whole else None
    if suite == "vtab1k":
        parts = [[value for task, value in accuracy.items() if task.group == group] for group in VTAB_GROUPS]
        return {"mean_19": mean, "mean_groups": _mean(map(_mean, parts)) if whole else None}
    return {"mean_5": mean} if suite == "fgvc" else {}


def _over_seeds(parts: Sequence[list[Run]]) -> dict[str, float | None]:
    """Of the mean over tasks: sample standard deviation and 95 % interval.

    Blank where tasks have different seeds: over those that all have, they would be of another mean than the printed.
    """
    seeds = [sorted({run["seed"] for run in part}) for part in parts]
    alike = seeds[0] if seeds and seeds.count(seeds[0]) == len(seeds) else []
    means = [fmean(fmean(run["accuracy"] for run in part if run["seed"] == seed) for part in parts) for seed in alike]
    interval = over_seeds(means) if len(means) >= LEAST_SEEDS else None
    return {
        "std_over_seeds": stdev(means) if len(means) > 1 else None,
        "mean_low": interval and interval.low,
        "mean_high": interval and interval.high,
    }


def _task_columns(board: Board, runs: list[Run]) -> list[TaskColumn]:
    examples = {_identity(run): run for run in reversed(runs)}
    tasks = list(examples)
    marks = ["" if run["provenance"] == board.provenance else f"@{run['provenance']}" for run in examples.values()]
    names = [one_line(name) + mark for (name, _, _), mark in zip(tasks, marks, strict=True)]
    labels = distinct(
        names,
        [f"{name}@{data[:6]}" for name, (_, _, data) in zip(names, tasks, strict=True)],
        [f"{name}@{data[:6]}.v{version}" for name, (_, version, data) in zip(names, tasks, strict=True)],
        [f"{name}@{fingerprint(task)}" for name, task in zip(names, tasks, strict=True)],
    )
    columns = [
        TaskColumn(*task, one_line(examples[task]["group"]), label) for task, label in zip(tasks, labels, strict=True)
    ]
    official = {name: place for place, name in enumerate(table_order(board.suite))}
    groups = {group: place for place, group in enumerate(VTAB_GROUPS)}

    def place(task: TaskColumn) -> tuple[Any, ...]:
        return (
            official.get(task.name, len(official)),
            *((groups.get(task.group, 9), task.group) if task.name not in official else ()),
            *(task.name, task.version, task.data),
        )

    return sorted(columns, key=place)


def _method_labels(rows: list[dict[str, Any]]) -> list[str]:
    specs = [one_line(row["spec"]) for row in rows]
    titles = [row["method"] for row in rows]
    return distinct(
        titles,
        [title + "".join(spec.partition("(")[1:]) for title, spec in zip(titles, specs, strict=True)],
        specs,
        [spec if row["lr"] is None else f"{spec} lr {row['lr']:g}" for spec, row in zip(specs, rows, strict=True)],
        [f"{spec} v{row['method_version']}" for spec, row in zip(specs, rows, strict=True)],
        [f"{spec} #{fingerprint([row[n] for n in IDENTITY], 6)}" for spec, row in zip(specs, rows, strict=True)],
    )


def distinct(*tiers: Sequence[str]) -> list[str]:
    """The first tier's labels; those that occur twice are replaced by the next tier's, and so on."""
    labels = list(tiers[0])
    for tier in tiers[1:]:
        seen = Counter(labels)
        labels = [longer if seen[label] > 1 else label for label, longer in zip(labels, tier, strict=True)]
    return labels


def _identity(run: Run) -> tuple[str, int, str]:
    return run["task"], run["task_version"], run["data"]


def _mean(values: Iterable[float | None]) -> float | None:
    """None when there is nothing to average, or a gap among it."""
    numbers = list(values)
    known = [number for number in numbers if number is not None]
    return fmean(known) if known and len(known) == len(numbers) else None
