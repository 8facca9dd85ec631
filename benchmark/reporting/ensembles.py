"""Ensembles of stored models: chosen on val200, tested once.  Logits in, accuracies with intervals out.

Runs with `--split val` (trained on train800) decide; the runs with `--split test` of the same methods and seeds are
refits on all 1,000 images.  `choose` gets validation predictions alone, and `test` opens the test predictions after
all choices are made.

The members of `chosen` are added one by one, each the one that raises the accuracy on val200 most (Caruana et al.,
Ensemble selection from libraries of models, ICML 2004; here each method at most once).  Its rivals of the same size are
seeds of one method (Lakshminarayanan et al., NeurIPS 2017).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..storage.predictions import Predictions
from ..storage.schema import Run
from .agreement import Row, Sample, common_seeds, predictions_by_row, summarise
from .leaderboards import Leaderboard, TaskColumn
from .stats import LEAST_SEEDS, InsufficientData, Interval

STRATEGIES = {
    "single": "best method on val200",
    "seeds": "its seeds, averaged",
    "chosen": "chosen methods, averaged",
    "all": "all methods, averaged",
    "vote": "all methods, majority vote",
}
Pool = Mapping[str, Mapping[int, Predictions]]
"""Label -> seed -> predictions with logits and labels."""


@dataclass(frozen=True)
class Choice:
    """What val200 decides on one task."""

    task: TaskColumn
    ranking: tuple[str, ...]
    """Labels of the methods, the best mean accuracy over seeds first."""
    members: Mapping[int, tuple[str, ...]]
    """Seed -> methods of the ensemble, in the order in which they were added."""


@dataclass(frozen=True)
class Outcome:
    """Test accuracies in [0, 1], of one task or in the mean over tasks."""

    task: str
    accuracy: Mapping[str, float]
    """Strategy -> accuracy, mean over seeds; `seeds` is one ensemble of all of them."""
    gain: Mapping[str, Interval]
    """Strategy -> accuracy minus that of `single`, with its interval."""


@dataclass(frozen=True)
class Ensembles:
    """Choices and outcomes of the rows of a leaderboard."""

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    size: int
    choices: tuple[Choice, ...]
    by_task: tuple[Outcome, ...]
    mean: Outcome


def ensembles(
    entry: Leaderboard, val_runs: Sequence[Run], runs: Iterable[Run], rows: Sequence[Row], size: int | None = None
) -> Ensembles:
    """Choose ensembles on the validation runs and test them once.

    Args:
        entry: The leaderboard of the validation runs, so that not even the order of rows depends on test images.
        runs: Stored runs, among them the test runs.
        size: Number of members; None: the number of seeds, at least two.

    Raises:
        InsufficientData: There is one row, or runs, predictions, logits or common tasks or seeds are missing.
    """
    if len(rows) < 2:
        raise InsufficientData("an ensemble needs at least two methods with validation runs")
    tasks = [task for task in entry.tasks if all(row[f"accuracy_{task.label}"] is not None for row in rows)]
    pools = {task: with_logits(predictions_by_row(entry, val_runs, rows, task), task, "val") for task in tasks}
    seeds = common_seeds(own for pool in pools.values() for own in pool.values())
    size = min(size or max(2, len(seeds)), len(rows))
    choices = tuple(choose(task, pool, seeds, size) for task, pool in pools.items())
    refits = refits_of(val_runs, runs, rows, entry, seeds)
    tested = [
        outcomes_of(choice, with_logits(predictions_by_row(entry, refits, rows, choice.task), choice.task, "test"))
        for choice in choices
    ]
    mean = {name: float(np.mean([accuracy[name] for accuracy, _ in tested])) for name in STRATEGIES}
    return Ensembles(
        labels=tuple(row["label"] for row in rows),
        seeds=seeds,
        size=size,
        choices=choices,
        by_task=tuple(_outcome(choice.task.label, a, [s]) for choice, (a, s) in zip(choices, tested, strict=True)),
        mean=_outcome(f"mean of {len(tasks)}", mean, [samples for _, samples in tested]),
    )


def with_logits(pool: Pool, task: TaskColumn, split: str) -> Pool:
    """Return the pool; raise `InsufficientData` if a run has no logits."""
    for label, by_seed in pool.items():
        if lacking := [seed for seed, own in by_seed.items() if own.logits is None]:
            raise InsufficientData(
                f"{label} on {task.label}, seed {lacking[0]}: the {split} run has no logits; repeat its command with "
                f"--split {split} --keep-logits"
            )
    return pool


def choose(task: TaskColumn, pool: Pool, seeds: Sequence[int], size: int) -> Choice:
    """Choose on the validation predictions of a task; names break ties."""
    means = {label: np.mean([pool[label][seed].correct.mean() for seed in seeds]) for label in pool}
    ranking = tuple(sorted(pool, key=lambda label: (-means[label], label)))
    members = {}
    for seed in seeds:
        probabilities = {label: softmax(pool[label][seed]) for label in sorted(pool)}
        members[seed] = grow(probabilities, labels_of(pool[ranking[0]][seed]), size)
    return Choice(task, ranking, members)


def grow(probabilities: Mapping[str, np.ndarray], labels: np.ndarray, size: int) -> tuple[str, ...]:
    """Add the method with the highest accuracy of the average, `size` times; then the likelihood of the labels decides.

    Args:
        probabilities: Label of a method -> [images, classes].
        labels: [images] true classes.
    """
    chosen: list[str] = []
    total: Any = 0.0
    for _ in range(size):

        def quality(label: str, total: Any = total) -> tuple[float, float]:
            together = total + probabilities[label]
            likelihood = np.log(together[np.arange(len(labels)), labels] + 1e-12).mean()
            return float((together.argmax(1) == labels).mean()), float(likelihood)

        best = max((label for label in probabilities if label not in chosen), key=quality)
        chosen.append(best)
        total = total + probabilities[best]
    return tuple(chosen)


def softmax(own: Predictions) -> np.ndarray:
    """Return probabilities [images, classes] in float64."""
    assert own.logits is not None, "`with_logits` requires them"
    powers = np.exp(own.logits.astype(np.float64))  # the largest logit is 0
    return powers / powers.sum(axis=1, keepdims=True)


def labels_of(own: Predictions) -> np.ndarray:
    """Return the true classes [images], which are stored with the logits."""
    assert own.labels is not None, "`load_predictions` requires them with logits"
    return own.labels


def refits_of(
    val_runs: Iterable[Run], runs: Iterable[Run], rows: Sequence[Row], entry: Leaderboard, seeds: Sequence[int]
) -> list[Run]:
    """Return the test runs that differ from the rows' validation runs in the split alone.

    Raises:
        InsufficientData: One is missing.
    """
    stored, identities = {run.run_id: run for run in runs}, {row["identity"] for row in rows}
    found = []
    for run in val_runs:
        if run.spec.seed not in seeds or entry.id.row_identity(run) not in identities:
            continue
        partner = stored.get(replace(run.spec, split="test").run_id())
        if partner is None:
            raise InsufficientData(
                f"{run.method_spec} on {run.spec.task.name}, seed {run.spec.seed}, has a validation run and no test "
                "run; repeat its command with --split test --keep-logits"
            )
        found.append(partner)
    return found


def outcomes_of(choice: Choice, pool: Pool) -> tuple[dict[str, float], dict[str, Sample]]:
    """Return the test accuracy of each strategy, and the samples of its gain over `single`."""
    seeds, best = list(choice.members), choice.ranking[0]
    labels = labels_of(pool[best][seeds[0]])
    probabilities = {(label, seed): softmax(pool[label][seed]) for label in pool for seed in seeds}

    def average(members: Iterable[tuple[str, int]]) -> np.ndarray:
        return np.sum([probabilities[member] for member in members], axis=0).argmax(1) == labels

    correct = {
        "single": np.stack([pool[best][seed].correct for seed in seeds]),
        "seeds": average((best, seed) for seed in seeds)[None],
        "chosen": np.stack([average((label, seed) for label in choice.members[seed]) for seed in seeds]),
        "all": np.stack([average((label, seed) for label in pool) for seed in seeds]),
        "vote": np.stack([vote([pool[label][seed].classes for label in choice.ranking]) == labels for seed in seeds]),
    }
    single = correct["single"].astype(float)
    gains = {name: bits - (single if len(bits) > 1 else single.mean(0)) for name, bits in correct.items()}
    samples = {name: Sample(np.array([g.mean()]), _by_seed(g), g.mean(0)[None]) for name, g in gains.items()}
    return {name: float(bits.mean()) for name, bits in correct.items()}, samples


def _by_seed(gain: np.ndarray) -> np.ndarray:
    """Return the gain of each seed [1, seeds], no seeds where there are too few."""
    return gain.mean(1)[None, :] if len(gain) >= LEAST_SEEDS else np.empty((1, 0))


def vote(classes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the most frequent class of each image [images]; of tied classes, that of the earliest voter."""
    ballots = np.stack(classes)
    counts = (ballots[:, None] == ballots[None]).sum(axis=1)  # votes for the class of each voter
    return np.take_along_axis(ballots, counts.argmax(axis=0)[None], axis=0)[0]


def _outcome(task: str, accuracy: Mapping[str, float], tested: Sequence[Mapping[str, Sample]]) -> Outcome:
    gains = {name: summarise([samples[name] for samples in tested])[0] for name in STRATEGIES if name != "single"}
    return Outcome(task, accuracy, gains)
