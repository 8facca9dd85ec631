"""Ensembles of stored models: chosen on val, tested once.  Logits in, accuracies with intervals out.

Runs with `--split val` (trained on train) decide; the runs with `--split test` of the same methods and seeds are
refits on all 1,000 images.  `choose` gets validation predictions alone, and `test` opens the test predictions after
all choices are made.

The members of `chosen` are added one by one, each the one that raises the accuracy on val most (Caruana et al.,
Ensemble selection from libraries of models, ICML 2004; here each method at most once).  Its rivals of the same size are
seeds of one method (Lakshminarayanan et al., NeurIPS 2017).

Members have different seeds in turn, because runs with one seed share batches and initial classifier, and so errors.
With S seeds there are S such ensembles, which share runs; so intervals are over images alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..storage.predictions import Predictions
from ..storage.schema import Run
from .agreement import Row, Sample, of_common_seeds, predictions_by_row, summarise
from .leaderboards import Leaderboard, TaskColumn
from .stats import InsufficientData, Interval, levels

STRATEGIES = {
    "single": "best method on val",
    "seeds": "its seeds, averaged",
    "chosen": "chosen methods, averaged",
    "all": "all methods, averaged",
    "vote": "all methods, majority vote",
}
LabelAndSeed = tuple[str, int]
"""Label of a method, and seed."""
Pool = Mapping[str, Mapping[int, Predictions]]
"""Label -> seed -> predictions with logits and labels."""


@dataclass(frozen=True)
class Choice:
    """The choices that val200 makes on one task."""

    task: TaskColumn
    ranking: tuple[str, ...]
    """Labels of the methods, the best mean accuracy over seeds first."""
    members: tuple[tuple[LabelAndSeed, ...], ...]
    """Members of each ensemble, in the order in which they were added; the first have the seeds in order."""


@dataclass(frozen=True)
class Outcome:
    """Test accuracies in [0, 1], of one task or in the mean over tasks."""

    task: str
    accuracy: Mapping[str, float]
    """Strategy -> accuracy, mean over seeds or over ensembles; `seeds` is one ensemble of all of them."""
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
    val_runs, seeds = of_common_seeds(entry, val_runs, rows, tasks)
    pools = {task: with_logits(predictions_by_row(entry, val_runs, rows, task), task, "val") for task in tasks}
    size = min(size or max(2, len(seeds)), len(rows))
    choices = tuple(choose(task, pool, seeds, size) for task, pool in pools.items())
    refits = refits_of(val_runs, runs)
    tested = [
        outcomes_of(
            choice, with_logits(predictions_by_row(entry, refits, rows, choice.task), choice.task, "test"), seeds
        )
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
    places = levels([float(np.mean([own[seed].correct.mean() for seed in seeds])) for own in pool.values()])
    ranking = tuple(label for _, label in sorted(zip(-places, pool, strict=True)))
    by_seed = [{label: softmax(pool[label][seed]) for label in sorted(pool)} for seed in seeds]
    labels, members = labels_of(pool[ranking[0]][seeds[0]]), []
    for turn in range(len(seeds)):
        chosen = grow(by_seed[turn:] + by_seed[:turn], labels, size)
        members.append(in_turn(chosen, seeds, turn))
    return Choice(task, ranking, tuple(members))


def in_turn(labels: Sequence[str], seeds: Sequence[int], turn: int) -> tuple[LabelAndSeed, ...]:
    """Give the methods the seeds in turn, from the one at `turn`."""
    return tuple((label, seeds[(turn + place) % len(seeds)]) for place, label in enumerate(labels))


def grow(by_seed: Sequence[Mapping[str, np.ndarray]], labels: np.ndarray, size: int) -> tuple[str, ...]:
    """Add the method with the highest accuracy of the average, `size` times; then the likelihood of the labels decides.

    Args:
        by_seed: For each seed, label of a method -> [images, classes]; the members take the seeds in turn.
        labels: [images] true classes.
    """
    chosen: list[str] = []
    total: Any = 0.0
    for step in range(size):
        probabilities = by_seed[step % len(by_seed)]

        def quality(
            label: str, total: Any = total, own: Mapping[str, np.ndarray] = probabilities
        ) -> tuple[float, float]:
            together = total + own[label]
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


def refits_of(val_runs: Iterable[Run], runs: Iterable[Run]) -> list[Run]:
    """Return the test runs that differ from the validation runs in the split alone.

    Raises:
        InsufficientData: One is missing.
    """
    stored = {run.run_id: run for run in runs}
    found = []
    for run in val_runs:
        partner = stored.get(replace(run.spec, split="test").run_id())
        if partner is None:
            raise InsufficientData(
                f"{run.method_spec} on {run.spec.task.name}, seed {run.spec.seed}, has a validation run and no test "
                "run; repeat its command with --split test --keep-logits"
            )
        found.append(partner)
    return found


def outcomes_of(choice: Choice, pool: Pool, seeds: Sequence[int]) -> tuple[dict[str, float], dict[str, Sample]]:
    """Return the test accuracy of each strategy, and the samples of its gain over `single`."""
    best, methods = choice.ranking[0], sorted(pool)
    labels = labels_of(pool[best][seeds[0]])
    probabilities = {(label, seed): softmax(pool[label][seed]) for label in pool for seed in seeds}
    every = [in_turn(methods, seeds, turn) for turn in range(len(seeds))]

    def average(members: Sequence[LabelAndSeed]) -> np.ndarray:
        return np.sum([probabilities[member] for member in members], axis=0).argmax(1) == labels

    def majority(members: Sequence[LabelAndSeed]) -> np.ndarray:
        of_method = dict(members)
        return vote([pool[label][of_method[label]].classes for label in choice.ranking]) == labels

    correct = {
        "single": [pool[best][seed].correct for seed in seeds],
        "seeds": [average([(best, seed) for seed in seeds])],
        "chosen": list(map(average, choice.members)),
        "all": list(map(average, every)),
        "vote": list(map(majority, every)),
    }
    shares = {name: np.mean(bits, axis=0) for name, bits in correct.items()}  # [images]
    gains = {name: share - shares["single"] for name, share in shares.items()}
    samples = {name: Sample(np.array([gain.mean()]), np.empty((1, 0)), gain[None]) for name, gain in gains.items()}
    return {name: float(share.mean()) for name, share in shares.items()}, samples


def vote(classes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the most frequent class of each image [images]; of tied classes, that of the earliest voter."""
    ballots = np.stack(classes)
    counts = (ballots[:, None] == ballots[None]).sum(axis=1)  # votes for the class of each voter
    return np.take_along_axis(ballots, counts.argmax(axis=0)[None], axis=0)[0]


def _outcome(task: str, accuracy: Mapping[str, float], tested: Sequence[Mapping[str, Sample]]) -> Outcome:
    gains = {name: summarise([samples[name] for samples in tested])[0] for name in STRATEGIES if name != "single"}
    return Outcome(task, accuracy, gains)
