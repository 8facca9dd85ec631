"""How sensitive methods are to their settings, from the stored trials on val; no choice looks at a test image.

Only the gain of tuning reads test runs: those at the default settings, and the refits whose settings `tune` had chosen
on val.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from ..escaping import one_line
from ..spec import RunSpec
from ..storage.schema import Failure, Run
from .leaderboard_id import LeaderboardId, by_leaderboard
from .stats import LEAST_SEEDS, TIE, Interval, levels, over_seeds

WITHIN = 0.01
"""Accuracy below the best at which a plateau ends: one point, two of the 200 validation images (ours)."""
FIRST = {"lr": 0, "weight_decay": 1}
"""Fields that stand before those of the method."""
DERIVED = ("warmup_epochs", "cooldown_epochs")
"""Fields of the recipe that follow the epochs."""

Task = tuple[str, int, str]
"""Name, version and data hash, as `Run.task_id`."""
Point = tuple[tuple[str, Any], ...]
"""The settings of a trial in which the trials of its method differ, as (field, value)."""


@dataclass(frozen=True)
class Slice:
    """Trials that differ in one numeric field alone."""

    field: str
    values: tuple[float, ...]
    """Values of the field, in rising order."""
    accuracies: np.ndarray
    """[tasks, values] on val; a diverged trial has 0."""
    others: Point
    """The other settings."""

    @property
    def means(self) -> np.ndarray:
        """Mean accuracy over tasks, [values]."""
        return self.accuracies.mean(axis=0)

    @property
    def best(self) -> int:
        """Index of the best value, the lowest of equals."""
        return int(levels(self.means).argmax())

    @property
    def plateau(self) -> tuple[float, float]:
        """First and last of the neighbouring values around the best whose mean is within one point of it."""
        means = self.means
        near = means >= means.max() - WITHIN - TIE
        first = last = self.best
        while first > 0 and near[first - 1]:
            first -= 1
        while last + 1 < len(near) and near[last + 1]:
            last += 1
        return self.values[first], self.values[last]


@dataclass(frozen=True)
class Gain:
    """Test accuracy of tuned settings minus that of the defaults, over the common tasks and seeds."""

    recipe: str
    """The tuned recipe."""
    tasks: int
    default: float
    tuned: float
    seeds: int
    interval: Interval | None
    """Student's 95 % interval over seeds; None for fewer than 3."""


@dataclass(frozen=True)
class MethodSensitivity:
    """The trials of one method under one recipe."""

    title: str
    tasks: tuple[str, ...]
    trials: int
    """Number of settings that were tried on all of the tasks."""
    slices: tuple[Slice, ...]
    """One per numeric field with at least two values, learning rate first."""
    best: float
    """Best accuracy on val of each task, mean over tasks."""
    expected: np.ndarray
    """[trials] expected best accuracy on val of k = 1, 2, ... random trials, mean over tasks."""
    gains: tuple[Gain, ...]


def expected_best(accuracies: Sequence[float], most: int) -> np.ndarray:
    """Return the expected maximum of k = 1 to `most` draws with replacement (Dodge et al., EMNLP 2019, equation 1).

    With n sorted accuracies v_1 <= ... <= v_n: E[max of k] = sum_i v_i ((i / n)^k - ((i - 1) / n)^k).
    """
    values = np.sort(np.asarray(accuracies, dtype=float))
    cumulative = np.arange(len(values) + 1) / len(values)
    return np.array([values @ np.diff(cumulative**k) for k in range(1, most + 1)])


def sensitivities(
    runs: Sequence[Run], failures: Iterable[Failure] = ()
) -> dict[LeaderboardId, list[MethodSensitivity]]:
    """Return the sensitivity of every method with at least two trials, by the conditions that its trials share.

    failures: failed runs; trials that diverged count with accuracy 0, unless their result is stored too.
    """
    found: dict[LeaderboardId, dict[Any, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.spec.split == "val":
            found[LeaderboardId.of(run)][_method_key(run.spec)].append(run)
    stored = {run.run_id for run in runs}
    lost = [failure.spec for failure in failures if failure.error_type == "Diverged" and failure.spec.split == "val"]
    lost = [spec for spec in lost if spec.run_id() not in stored]
    gains = _gains(runs)
    result: dict[LeaderboardId, list[MethodSensitivity]] = {}
    for identity, methods in sorted(found.items(), key=lambda item: item[0].slug):
        known: list[MethodSensitivity] = []
        for key, own in sorted(methods.items(), key=lambda item: str(item[0])):
            alike = _conditions(own[0].spec)
            trials = [(run.spec, run.accuracy) for run in own]
            trials += [(spec, 0.0) for spec in lost if _method_key(spec) == key and _conditions(spec) == alike]
            if (one := _method(own[0].title, trials, gains[identity, key])) is not None:
                known.append(one)
        if known:
            result[identity] = known
    return result


def _method_key(spec: RunSpec) -> tuple[Any, ...]:
    return spec.method.name, spec.method.version, spec.method.plugin


def _conditions(spec: RunSpec) -> tuple[Any, ...]:
    """Return what `LeaderboardId` compares, for specs without a result."""
    task, recipe = spec.task, spec.recipe
    shared = (spec.backbone, task.suite, task.provenance, spec.recipe_base, recipe.image_size)
    return *shared, spec.mean, spec.std, spec.interpolation


def _method(title: str, trials: Sequence[tuple[RunSpec, float]], gains: Sequence[Gain]) -> MethodSensitivity | None:
    """Return the sensitivity of one method; None for fewer than two settings."""
    by_point = _by_point(trials)
    wholes = sorted({tuple(sorted(by_task)) for by_task in by_point.values()})

    def complete(tasks: Sequence[Task]) -> list[Point]:
        return [point for point, by_task in by_point.items() if by_task.keys() >= set(tasks)]

    tasks = max(wholes, key=lambda tasks: (len(complete(tasks)) * len(tasks), tasks))
    table = {point: np.array([by_point[point][task] for task in tasks]) for point in complete(tasks)}
    if len(table) < 2:
        return None
    accuracies = np.stack([*table.values()])  # [trials, tasks]
    curves = [expected_best(column, len(table)) for column in accuracies.T]
    fields = sorted({name for point in table for name, _ in point}, key=lambda name: (FIRST.get(name, 2), name))
    slices = [found for name in fields if (found := _slice(name, table)) is not None]
    names = tuple(one_line(name) for name, _, _ in tasks)
    return MethodSensitivity(
        title=one_line(title),
        tasks=names,
        trials=len(table),
        slices=tuple(slices),
        best=float(accuracies.max(axis=0).mean()),
        expected=np.mean(curves, axis=0),
        gains=tuple(gains),
    )


def _by_point(trials: Sequence[tuple[RunSpec, float]]) -> dict[Point, dict[Task, float]]:
    """Return the mean accuracy over seeds of each setting and task."""
    settings = [_settings(spec) for spec, _ in trials]
    names = {name for own in settings for name in own} - {"source"}
    varied = sorted(name for name in names if len({str(own.get(name)) for own in settings}) > 1)
    varied = [name for name in varied if name not in DERIVED or "epochs" not in varied]
    found: dict[Point, dict[Task, list[float]]] = defaultdict(lambda: defaultdict(list))
    for own, (spec, accuracy) in zip(settings, trials, strict=True):
        point = tuple((name, own.get(name)) for name in varied)
        found[point][spec.task.name, spec.task.version, spec.task.data].append(accuracy)
    return {point: {task: fmean(values) for task, values in by_task.items()} for point, by_task in found.items()}


def _settings(spec: RunSpec) -> dict[str, Any]:
    """Return the fields of the recipe and the method's arguments; `method.NAME` is one that is named like a field."""
    recipe = asdict(spec.recipe)
    own = _flat(spec.method.args)
    return recipe | {f"method.{name}" if name in recipe else name: value for name, value in own.items()}


def _flat(args: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return arguments with those of a part of a combination, or of a tuner of peft, as `lora.rank`; lists as text."""
    found: dict[str, Any] = {}
    for name, value in args.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(value) if isinstance(value, list | tuple) else value
    return found


def _slice(field: str, table: Mapping[Point, np.ndarray]) -> Slice | None:
    """Return the slice with most values, of equals the one with the highest accuracy; None for fewer than two values.

    table: setting -> accuracies [tasks].
    """
    groups: dict[Point, dict[float, np.ndarray]] = defaultdict(dict)
    for point, accuracies in table.items():
        value = dict(point)[field]
        if isinstance(value, int | float) and not isinstance(value, bool):
            groups[tuple(item for item in point if item[0] != field)][value] = accuracies
    found = [
        Slice(field, tuple(sorted(own)), np.stack([own[value] for value in sorted(own)], axis=1), others)
        for others, own in groups.items()
        if len(own) > 1
    ]
    heights = levels([one.means.max() for one in found])
    ranked = zip(found, heights, strict=True)
    return max(ranked, key=lambda pair: (len(pair[0].values), pair[1]), default=(None, 0))[0]


def _gains(runs: Sequence[Run]) -> Mapping[tuple[Any, ...], list[Gain]]:
    """Return the gains of tuning by conditions of the trials and method."""
    trials = {run.run_id: run for run in runs if run.spec.split == "val"}
    tests = [run for _, own in by_leaderboard(runs) for run in own]
    defaults: dict[tuple[Any, ...], dict[Task, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    tuned: dict[tuple[Any, ...], dict[Task, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in tests:
        trial = trials.get(run.tuning.get("val_key", ""))
        identity = LeaderboardId.of(run) if trial is None else LeaderboardId.of(trial)
        key = (identity, _method_key(run.spec), run.method_spec)
        into = defaults[key] if trial is None else tuned[*key, run.spec.recipe.name]
        into[run.task_id][run.spec.seed] = run.accuracy
    found: dict[tuple[Any, ...], list[Gain]] = defaultdict(list)
    for (*key, recipe), after in sorted(tuned.items(), key=str):
        before = defaults.get(tuple(key), {})
        tasks = sorted(before.keys() & after.keys())
        seeds = sorted(set.intersection(*(before[task].keys() & after[task].keys() for task in tasks))) if tasks else []
        if not seeds:
            continue
        low, high = ([fmean(of[task][seed] for task in tasks) for seed in seeds] for of in (before, after))
        each = [b - a for a, b in zip(low, high, strict=True)]
        interval = over_seeds(each) if len(each) >= LEAST_SEEDS else None
        found[tuple(key[:-1])].append(Gain(one_line(recipe), len(tasks), fmean(low), fmean(high), len(seeds), interval))
    return found
