"""Few-shot draws of tasks: k training images of each class, and k others of each class for validation.

The images come from train and val together; test stays as it is.  Each class is ordered by SHA-256 over
`<seed> <position>`: the first k images are train and the next k are val.  So a draw is the same on every machine, train
and val share no image, and a draw of more shots contains the training images of fewer.
"""

import hashlib
import json
import re
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .cache import CachedTask
from .task import DataError, SplitName

SUITE = re.compile(r"(?P<suite>.+)@(?P<shots>[1-9][0-9]*)shot\.seed(?P<seed>[0-9]+)")
"""Suite of a draw: `toy@4shot.seed0`.  The suites of custom tasks cannot contain `@`."""
SHOWN = 5
"""Classes that a message names (our choice)."""


class Draw(NamedTuple):
    """Shots per class, and the seed that chooses the images."""

    shots: int
    seed: int

    def suite(self, suite: str) -> str:
        """Return the suite of drawn tasks; each draw has its own, because its runs share no leaderboard."""
        return f"{suite}@{self.shots}shot.seed{self.seed}"

    def __str__(self) -> str:
        return f"{self.shots} shot{'s' if self.shots > 1 else ''}, shot seed {self.seed}"


def split_suite(suite: str) -> tuple[str, Draw | None]:
    """Return the suite of the whole tasks and the draw; None for a suite that is no draw."""
    if (match := SUITE.fullmatch(suite)) is None:
        return suite, None
    return match["suite"], Draw(int(match["shots"]), int(match["seed"]))


@dataclass(frozen=True, kw_only=True)
class FewShotTask(CachedTask):
    """A draw of a decoded task; `files` are those of the whole task."""

    draw: Draw

    @cached_property
    def rows(self) -> dict[SplitName, np.ndarray]:
        """Positions of train and val, ascending, in the whole train and val together.

        Raises:
            DataError: a class has fewer than twice as many images as shots.
        """
        labels = np.concatenate([super(FewShotTask, self).labels(split) for split in ("train", "val")])
        _check_classes(self, np.bincount(labels, minlength=self.classes))
        order = sorted(range(len(labels)), key=lambda row: hashlib.sha256(f"{self.draw.seed} {row}".encode()).digest())
        by_class = [[row for row in order if labels[row] == label] for label in range(self.classes)]
        shots = self.draw.shots
        parts: dict[SplitName, slice] = {"train": slice(shots), "val": slice(shots, 2 * shots)}
        return {split: np.sort(np.array([rows[part] for rows in by_class]).ravel()) for split, part in parts.items()}

    def images(self, split: SplitName) -> np.ndarray:
        """[n, 3, height, width] uint8"""
        if split == "test":
            return super().images(split)
        train, val = super().images("train"), super().images("val")
        rows = self.rows[split]
        return np.concatenate([train[rows[rows < len(train)]], val[rows[rows >= len(train)] - len(train)]])

    def labels(self, split: SplitName) -> np.ndarray:
        """[n] int64"""
        if split == "test":
            return super().labels(split)
        return np.concatenate([super(FewShotTask, self).labels(part) for part in ("train", "val")])[self.rows[split]]

    def training_splits(self, evaluated: SplitName) -> tuple[SplitName, ...]:
        """Return train alone: with val, a result of k shots would be one of 2k."""
        return ("train",)


def few_shot(data: CachedTask, draw: Draw) -> FewShotTask:
    """Return a draw of a task; the hash of its data covers the images that were drawn.

    Raises:
        DataError: a class has fewer than twice as many images as shots.
    """
    known = {f.name: getattr(data, f.name) for f in fields(CachedTask)}
    known["task"] = replace(data.task, suite=draw.suite(data.task.suite), sizes={})
    known["counts"] = {**data.counts, **dict.fromkeys(("train", "val"), draw.shots * data.classes)}
    drawn = FewShotTask(**known, draw=draw)
    if not data.data:  # not decoded yet
        return drawn
    facts = [data.data, *(drawn.rows[split].tolist() for split in ("train", "val"))]
    return replace(drawn, data=hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16])


def drawn_for(suite: str, data: CachedTask) -> CachedTask:
    """Return the draw of a task that the suite of a run names, or the task itself if the run used all images."""
    _, draw = split_suite(suite)
    return few_shot(data, draw) if draw else data


def _check_classes(data: FewShotTask, sizes: np.ndarray) -> None:
    needed = 2 * data.draw.shots
    if not (small := np.flatnonzero(sizes < needed).tolist()):
        return
    names = data.task.class_names or tuple(map(str, range(data.classes)))
    named = ", ".join(f"{names[label]} ({sizes[label]})" for label in small[:SHOWN])
    more = f" and {len(small) - SHOWN} more" if len(small) > SHOWN else ""
    suite, _ = split_suite(data.task.suite)
    most = int(sizes.min()) // 2
    raise DataError(
        f"{suite}/{data.task.name} has too few images for --shots {data.draw.shots}: every class needs {needed} in "
        f"train and val together, half of them for validation, but {len(small)} of {data.classes} classes have fewer: "
        f"{named}{more}; " + (f"at most {most} are possible" if most else "no number of shots is possible")
    )
