"""Leaderboards: tasks as columns, means over tasks, and ranks.

Pure functions of the runs: no torch, no clock, and no dependence on the order of files, because `fmean` is exactly
rounded.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import fsum
from operator import attrgetter
from statistics import fmean, stdev
from typing import Any

from ..canonical import fingerprint
from ..escaping import one_line
from ..storage.costs import Cost, Setup
from ..storage.schema import Run
from .costs import COLUMNS as COST_COLUMNS
from .costs import costs_of_rows
from .leaderboard_id import VTAB_GROUPS, LeaderboardId, table_order
from .origins import decoder_notes, plugin_notes, same_data_notes
from .papers import cited
from .stats import LEAST_SEEDS, levels, over_seeds
from .wording import pluralize

SHARED: dict[str, Callable[[Run], Any]] = {
    "lr": lambda run: float(run.spec.recipe.lr),
    "backbone": attrgetter("spec.backbone.name"),
    "recipe": attrgetter("spec.recipe.name"),
    "backbone_sha256": attrgetter("spec.backbone.sha256"),
    "method_version": attrgetter("spec.method.version"),
    "plugin": attrgetter("spec.method.plugin"),
    "args": attrgetter("spec.method.args_json"),
    "configurations": attrgetter("configurations"),
}
"""Columns that are blank where the runs of a row differ, as the settings of a tuned row do."""


@dataclass(frozen=True)
class TaskColumn:
    """A task as a column, identified by its data."""

    name: str
    version: int
    data: str
    group: str
    label: str
    """The name; `name@jpeg75` if the data have another provenance than the leaderboard; `name@ab12cd` if the
    leaderboard has several data hashes or versions of a name."""

    @property
    def task_id(self) -> tuple[str, int, str]:
        """Name, version and data hash, as `Run.task_id`."""
        return self.name, self.version, self.data


@dataclass(frozen=True)
class Leaderboard:
    """A leaderboard with its rows in order; accuracies are in [0, 1], None where there is none."""

    id: LeaderboardId
    tasks: tuple[TaskColumn, ...]
    groups: tuple[str, ...]
    """Task groups in order; empty if all tasks are of one group."""
    common: tuple[TaskColumn, ...]
    """The tasks that all rows have, if there are at least two and some row lacks another; used by `mean_common`."""
    rows: tuple[dict[str, Any], ...]
    """One row per method, best first, with the values of `columns` and:

    label: short name, unique in the leaderboard; identity: `LeaderboardId.row_identity`; devices: list of devices;
    papers: keys in `papers.bib`; train_seconds: sum over tasks of the mean over seeds; epochs: `30`, or `30 to 100` if
    tasks differ; is_probe: True if the runs have the epochs that recipes give to linear probes.
    """
    origins: tuple[str, ...] = ()
    """Notes on tasks with the same data, mixed decoders and loaded plug-in files, see origins.py."""
    cost_setup: Setup | None = None
    """How the costs of the rows were measured; None without any."""

    @property
    def columns(self) -> list[str]:
        """Columns of `leaderboard.csv`; docs/results.md describes each."""
        special = {"vtab1k": ["mean_19", "mean_groups"], "fgvc": ["mean_5"]}.get(self.id.suite, [])
        return [
            *("rank", "method", "spec", "backbone", "lr", "trainable_params", "trainable_params_with_head"),
            *(f"accuracy_{task.label}" for task in self.tasks),
            *(f"group_{group}" for group in self.groups),
            *("mean_tasks", *special, "std_over_seeds", "mean_low", "mean_high"),
            *(["mean_common"] if self.common else []),
            *("seconds", "device", "peak_memory_mb", "seeds", "recipe", "backbone_sha256"),
            *("method_version", "plugin", "args"),
            *(["configurations"] if self.id.tuned else []),
            *(["oracle_mean_tasks"] if self.has_oracle else []),
            *([*COST_COLUMNS, "cost_setup"] if self.cost_setup else []),
        ]

    @property
    def tuning(self) -> str:
        """How the settings were chosen."""
        tried = max((row["configurations"] or 0 for row in self.rows), default=0)
        if not self.id.tuned:
            return "untuned"
        return f"tuned: best of {tried} per task on val" if tried else "settings per task as published"

    @property
    def epochs(self) -> str:
        """`30 epochs`, or `30 epochs (Linear probe: 100)` if rows differ: those of probes are in brackets."""
        by_epochs: dict[str, list[str]] = defaultdict(list)
        for row in self.rows:
            by_epochs[row["epochs"]].append(row["label"])
        trained = Counter(row["epochs"] for row in self.rows if not row["is_probe"])
        usual = max(trained or by_epochs, key=lambda epochs: len(by_epochs[epochs]))
        others = [f"{', '.join(labels)}: {epochs}" for epochs, labels in by_epochs.items() if epochs != usual]
        return f"{usual} epoch{'' if usual == '1' else 's'}" + (f" ({'; '.join(others)})" if others else "")

    @property
    def has_oracle(self) -> bool:
        """True if some row has the accuracy of the best test epoch."""
        return any(row["oracle_mean_tasks"] is not None for row in self.rows)

    @property
    def seeds(self) -> str:
        """`3 seeds`, or `1 to 3 seeds` if rows differ."""
        counts = [row["seeds"] for row in self.rows]
        low, high = min(counts), max(counts)
        return f"{low} to {high} seeds" if low != high else pluralize(low, "seed")


def leaderboard(identity: LeaderboardId, runs: Iterable[Run], costs: Iterable[Cost] = ()) -> Leaderboard:
    """Compute a leaderboard.  Rows that lack a task are unranked and last, ordered by their mean over common tasks.

    costs: records of any backbones; those of the rows become columns.
    """
    runs = sorted(runs, key=lambda run: (run.created, run.run_id), reverse=True)  # the newest gives titles and groups
    tasks = _task_columns(identity, runs)
    present = {task.group for task in tasks}
    groups = [group for group in VTAB_GROUPS if group in present] + sorted(present - set(VTAB_GROUPS))
    groups = groups if len(groups) > 1 else []
    by_row: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        by_row[identity.row_identity(run)].append(run)
    rows: list[dict[str, Any]] = [
        _row(identity, tasks, groups, part) | {"identity": row_id} for row_id, part in by_row.items()
    ]
    for row, label in zip(rows, method_labels(rows), strict=True):
        row["label"] = label
    ordered, common = _ranked(rows, tasks)
    setup, found = costs_of_rows(ordered, identity.backbone, identity.image_size, costs)
    for row, cost in zip(ordered, found, strict=True):
        row |= {name: cost and column.value(cost) for name, column in COST_COLUMNS.items()}
        row["cost_setup"] = cost and str(setup)
    notes = same_data_notes({task.task_id: task.label for task in tasks})
    origins = (*notes, *decoder_notes(runs), *plugin_notes(runs))
    return Leaderboard(identity, tuple(tasks), tuple(groups), common, ordered, origins, setup)


def of_rows(entry: Leaderboard, labels: Collection[str]) -> Leaderboard:
    """Return the leaderboard of the rows with these labels, ranked among themselves."""
    rows, common = _ranked([dict(row) for row in entry.rows if row["label"] in labels], entry.tasks)
    return replace(entry, rows=rows, common=common)


def _ranked(
    rows: list[dict[str, Any]], tasks: Sequence[TaskColumn]
) -> tuple[tuple[dict[str, Any], ...], tuple[TaskColumn, ...]]:
    """Give rows their ranks and means over common tasks; return them in order, and these tasks."""
    ranked = [row for row in rows if row["mean_tasks"] is not None]
    places = levels([row["mean_tasks"] for row in ranked])
    for row in rows:
        row["rank"] = None
    for row, place in zip(ranked, places, strict=True):
        row["rank"] = 1 + int((places > place).sum())
    common = tuple(task for task in tasks if all(row[f"accuracy_{task.label}"] is not None for row in rows))
    common = common if 1 < len(common) < len(tasks) else ()
    for row in rows:
        row["mean_common"] = _mean(row[f"accuracy_{task.label}"] for task in common)
    unranked, shared = len(rows) + 1, levels([row["mean_common"] or 0 for row in rows])
    by_mean = sorted(
        zip(rows, shared, strict=True),
        key=lambda found: (found[0]["rank"] or unranked, -found[1], found[0]["spec"], found[0]["label"]),
    )
    return tuple(row for row, _ in by_mean), common


def _row(
    identity: LeaderboardId, tasks: Sequence[TaskColumn], groups: Sequence[str], runs: list[Run]
) -> dict[str, Any]:
    """Return the row of a method.  Means and sums over tasks are blank unless it has all tasks of the leaderboard."""
    by_id: dict[tuple[str, int, str], list[Run]] = defaultdict(list)
    for run in runs:
        by_id[run.task_id].append(run)
    by_task = {task: by_id.get(task.task_id, []) for task in tasks}
    accuracy = {task: _mean(run.accuracy for run in part) for task, part in by_task.items()}
    done = [part for part in by_task.values() if part]
    complete = len(done) == len(tasks)
    without = fmean(fmean(run.trainable_params for run in part) for part in done)
    head = fmean(fmean(run.head_params for run in part) for part in done)
    seconds = [fmean(run.train_seconds + run.eval_seconds for run in part) for part in done]
    devices = sorted({one_line(device) for device in {run.device for run in runs} if device})
    epochs = sorted({run.spec.recipe.epochs for run in runs})
    shared = {name: {get(run) for run in runs} for name, get in SHARED.items()}
    return {
        **{name: values.pop() if len(values) == 1 else None for name, values in shared.items()},
        "spec": runs[0].method_spec,
        "method": one_line(runs[0].title),
        "papers": cited(runs[0].spec.method),
        "trainable_params": round(without),
        "trainable_params_with_head": round(without + head),
        **{f"accuracy_{task.label}": value for task, value in accuracy.items()},
        **{f"group_{name}": _mean(accuracy[task] for task in tasks if task.group == name) for name in groups},
        "mean_tasks": _mean(accuracy.values()),
        **_suite_means(identity.suite, {task: value for task, value in accuracy.items() if value is not None}),
        **_over_seeds(list(by_task.values()) if complete else []),
        "seconds": fsum(seconds) if complete else None,
        "train_seconds": fsum(fmean(run.train_seconds for run in part) for part in done) if complete else None,
        "epochs": " to ".join(str(epochs[place]) for place in sorted({0, len(epochs) - 1})),
        "is_probe": all(run.spec.recipe.epochs == run.spec.recipe.probe_epochs for run in runs),
        "devices": devices,
        "device": "; ".join(devices),
        "peak_memory_mb": max(run.peak_bytes for run in runs) / 1e6,
        "seeds": min(len({run.spec.seed for run in part}) for part in done),
        "oracle_mean_tasks": _mean(_mean(run.oracle_accuracy for run in part) for part in by_task.values()),
    }


def _suite_means(suite: str, accuracy: dict[TaskColumn, float]) -> dict[str, float | None]:
    """Return the means that only rows with exactly the tasks of an official suite have."""
    whole = sorted(task.name for task in accuracy) == sorted(table_order(suite))
    mean = _mean(accuracy.values()) if whole else None
    if suite == "vtab1k":
        parts = [[value for task, value in accuracy.items() if task.group == group] for group in VTAB_GROUPS]
        return {"mean_19": mean, "mean_groups": _mean(map(_mean, parts)) if whole else None}
    return {"mean_5": mean} if suite == "fgvc" else {}


def _over_seeds(parts: Sequence[list[Run]]) -> dict[str, float | None]:
    """Return sample standard deviation and 95 % interval of the mean over tasks.

    Both are blank if tasks have different seeds, because the mean over shared seeds would differ from the one shown.
    """
    by_seed: list[dict[int, list[float]]] = []
    for part in parts:
        by_seed.append(defaultdict(list))
        for run in part:
            by_seed[-1][run.spec.seed].append(run.accuracy)
    alike = bool(by_seed) and all(found.keys() == by_seed[0].keys() for found in by_seed)
    seeds = sorted(by_seed[0]) if alike else []
    means = [fmean(fmean(found[seed]) for found in by_seed) for seed in seeds]
    interval = over_seeds(means) if len(means) >= LEAST_SEEDS else None
    return {
        "std_over_seeds": stdev(means) if len(means) > 1 else None,
        "mean_low": interval and interval.low,
        "mean_high": interval and interval.high,
    }


def _task_columns(identity: LeaderboardId, runs: list[Run]) -> list[TaskColumn]:
    examples = {run.task_id: run for run in reversed(runs)}
    tasks = list(examples)
    provenances = [run.spec.task.provenance for run in examples.values()]
    marks = ["" if provenance == identity.provenance else f"@{provenance}" for provenance in provenances]
    names = [one_line(name) + mark for (name, _, _), mark in zip(tasks, marks, strict=True)]
    labels = distinct(
        names,
        [f"{name}@{data[:6]}" for name, (_, _, data) in zip(names, tasks, strict=True)],
        [f"{name}@{data[:6]}.v{version}" for name, (_, version, data) in zip(names, tasks, strict=True)],
        [f"{name}@{fingerprint(task)}" for name, task in zip(names, tasks, strict=True)],
    )
    columns = [
        TaskColumn(*task, one_line(examples[task].group), label) for task, label in zip(tasks, labels, strict=True)
    ]
    official = {name: place for place, name in enumerate(table_order(identity.suite))}
    groups = {group: place for place, group in enumerate(VTAB_GROUPS)}

    def place(task: TaskColumn) -> tuple[Any, ...]:
        return (
            official.get(task.name, len(official)),
            *((groups.get(task.group, 9), task.group) if task.name not in official else ()),
            *task.task_id,
        )

    return sorted(columns, key=place)


def method_labels(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a short and unique label for each row: its title, with the arguments that are not the defaults."""
    specs = [one_line(row["spec"]) for row in rows]
    titles = [row["method"] for row in rows]
    with_arguments = [
        spec if " + " in spec else title + "".join(spec.partition("(")[1:])
        for title, spec in zip(titles, specs, strict=True)
    ]
    columns = ("method", "spec", "method_version", "plugin", "args", "lr")
    return distinct(
        with_arguments,
        specs,
        [spec if row["lr"] is None else f"{spec} lr {row['lr']:g}" for spec, row in zip(specs, rows, strict=True)],
        [f"{spec} v{row['method_version']}" for spec, row in zip(specs, rows, strict=True)],
        [f"{spec} #{row['plugin'][:6]}" if row["plugin"] else spec for spec, row in zip(specs, rows, strict=True)],
        [f"{spec} #{fingerprint([row[n] for n in columns], 6)}" for spec, row in zip(specs, rows, strict=True)],
    )


def distinct(*tiers: Sequence[str]) -> list[str]:
    """Return the labels of the first tier; labels that occur twice are replaced by those of the next tier."""
    labels = list(tiers[0])
    for tier in tiers[1:]:
        seen = Counter(labels)
        labels = [longer if seen[label] > 1 else label for label, longer in zip(labels, tier, strict=True)]
    return labels


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean; None if there are no values or one is None."""
    numbers = list(values)
    known = [number for number in numbers if number is not None]
    return fmean(known) if known and len(known) == len(numbers) else None
