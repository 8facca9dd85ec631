"""Few-shot draws of tasks: k training images of each class, and k others of each class for validation.

The images come from train and val together; test stays as it is.  Each class is ordered by SHA-256 over
`<seed> <position>`: the first k images are train and the next k are val.  So a draw is the same on every machine, train
and val share no image, and a draw of more shots contains the training images of fewer.

A list `shots_<k>_seed_<s>.txt` in the task's folder replaces the drawn train; val is then drawn from the others.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .archive import read, read_list
from .cache import CachedTask
from .first_of import first_of
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

    rows: dict[SplitName, np.ndarray] = field(compare=False)
    """Positions of train and val, ascending, in the whole train and val together; empty if it is not decoded yet."""

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
        DataError: a class has fewer than twice as many images as shots, or a list of the folder is wrong.
    """
    known = {f.name: getattr(data, f.name) for f in fields(CachedTask)}
    known["task"] = replace(data.task, suite=draw.suite(data.task.suite), sizes={})
    known["counts"] = {**data.counts, **dict.fromkeys(("train", "val"), draw.shots * data.classes)}
    if not data.data:  # not decoded yet
        return FewShotTask(**known, rows={})
    rows = draw_rows(data, draw)
    facts = [data.data, *(rows[split].tolist() for split in ("train", "val"))]
    known["data"] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return FewShotTask(**known, rows=rows)


def draw_rows(data: CachedTask, draw: Draw) -> dict[SplitName, np.ndarray]:
    """Return the rows of a draw, see `FewShotTask.rows`.  Raises `DataError` as `few_shot` does."""
    labels = np.concatenate([data.labels(split) for split in ("train", "val")])
    _check_classes(data, draw.shots, np.bincount(labels, minlength=data.classes))
    order = sorted(range(len(labels)), key=lambda row: hashlib.sha256(f"{draw.seed} {row}".encode()).digest())
    listed = _listed_rows(data, draw, labels)
    train, val = [], []
    for label in range(data.classes):
        own = [row for row in order if labels[row] == label]
        first = own[: draw.shots] if listed is None else [row for row in own if row in listed]
        train += first
        val += [row for row in own if row not in first][: draw.shots]
    return {"train": np.sort(train), "val": np.sort(val)}


def _listed_rows(data: CachedTask, draw: Draw, labels: np.ndarray) -> set[int] | None:
    """Return the rows of the folder's list for a draw; None without one.

    Raises:
        DataError: the list names other images than train and val, other labels, or another number of a class.
    """
    folder = data.task.folder
    path = (folder or Path()) / f"shots_{draw.shots}_seed_{draw.seed}.txt"
    if folder is None or not path.exists():
        return None
    listing, splits = read_list(path, data.classes), read(data.task)
    places = {file: row for row, file in enumerate([*splits["train"].files, *splits["val"].files])}
    for file, label in zip(listing.files, listing.labels, strict=True):
        if file not in places or labels[places[file]] != label:
            raise DataError(f"{path}: {file} with label {label} is not in train or val; correct its line")
    rows = {places[file] for file in listing.files}
    if (counts := np.bincount([labels[row] for row in rows], minlength=data.classes)).tolist() != (
        [draw.shots] * data.classes
    ):
        label = int(np.flatnonzero(counts != draw.shots)[0])
        raise DataError(f"{path} names {counts[label]} images of class {label}; it must name {draw.shots} of each")
    return rows


def drawn_for(suite: str, data: CachedTask) -> CachedTask:
    """Return the draw of a task that the suite of a run names, or the task itself if the run used all images."""
    _, draw = split_suite(suite)
    return few_shot(data, draw) if draw else data


def _check_classes(data: CachedTask, shots: int, sizes: np.ndarray) -> None:
    """Raise `DataError` if a class has fewer than twice `shots` images."""
    if not (small := np.flatnonzero(sizes < 2 * shots).tolist()):
        return
    names = data.task.class_names or tuple(map(str, range(data.classes)))
    named = first_of([f"{names[label]} ({sizes[label]})" for label in small], SHOWN)
    most = int(sizes.min()) // 2
    raise DataError(
        f"{data.task.label} has too few images for --shots {shots}: every class needs {2 * shots} in train and val "
        f"together, half of them for validation, but {len(small)} of {data.classes} classes have fewer: {named}; "
        + (f"at most {most} are possible" if most else "no number of shots is possible")
    )
