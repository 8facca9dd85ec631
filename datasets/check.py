"""Whether a task's data is there and right, and what to do when it is not."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from .archive import HELP, Problem, examine, provenance, splits_of
from .pixels import CORES, decode, in_order, probe
from .task import PROCEDURAL_SUITES, SPLITS, DataError, Split, SplitName, Task

State = Literal["found", "partial", "wrong", "missing"]
"""Usable; not all there; there, but not as it should be; not there."""
SHOWN = 10
"""CorruptRecord or doubled images named in one message (ours)."""


@dataclass(frozen=True)
class CheckResult:
    """What a look at a task's data showed."""

    state: State
    counts: dict[SplitName, int] = field(default_factory=dict)
    """Images of each split whose list can be read."""
    problems: tuple[str, ...] = ()
    """Why the data cannot be used."""
    notes: tuple[str, ...] = ()
    """What to know although it can be used."""
    provenance: str = "unknown"
    """`lossless`, `jpeg75` or `own`; `unknown` for data that cannot be used."""
    advice: str = "ready"
    """What to do next."""


def check(task: Task, deep: bool = False, threads: int = CORES) -> CheckResult:
    """Look at a task's lists, labels and counts, and whether every listed image is there.

    `deep` also decodes every image, and looks for test images that are byte for byte in train or val: a note and not
    a problem, since some of the field's own test sets hold such images.
    """
    if task.suite in PROCEDURAL_SUITES:
        counts: dict[SplitName, int] = {split: sizes[0] for split, sizes in task.sizes.items()}
        notes = _look_inside(task, task.load(task), threads)[1] if deep else []
        return CheckResult("found", counts, notes=tuple(notes), provenance=task.provenance)
    listings, problems = examine(task)
    made_of, notes = "unknown", []
    try:
        made_of = provenance(task, chain.from_iterable(listing.files for listing in listings.values()))
    except DataError as error:
        problems.append(Problem("wrong", str(error)))
    if deep and not problems:
        damaged, notes = _look_inside(task, splits_of(task, listings), threads)
        problems += damaged
    state = _state(problems)
    return CheckResult(
        state=state,
        counts={split: len(listing.files) for split, listing in listings.items()},
        problems=tuple(problem.text for problem in problems),
        notes=tuple(notes),
        provenance=made_of if state == "found" else "unknown",
        advice=_advice(task, state),
    )


def _state(problems: list[Problem]) -> State:
    """The worst of all problems; nothing there is worse than something wrong."""
    worst_first: tuple[State, ...] = ("missing", "wrong", "partial")
    for state in worst_first:
        if any(problem.state == state for problem in problems):
            return state
    return "found"


def _advice(task: Task, state: State) -> str:
    if state == "missing":
        return f"put the task into {task.folder}; {HELP}"
    if state == "partial":
        return f"complete {task.folder}; {HELP}"
    if state == "wrong":
        return f"correct what is named in {task.folder}, or take it from its source again; {HELP}"
    return "ready"


def _look_inside(task: Task, splits: dict[SplitName, Split], threads: int) -> tuple[list[Problem], list[str]]:
    """CorruptRecord images, and test images that are also in train or val."""
    damaged: list[str] = []
    hashes: dict[SplitName, list[str]] = {split: [] for split in SPLITS}
    with ThreadPoolExecutor(threads) as pool:
        for split in SPLITS:
            for result in in_order(_decoded, splits[split].images, pool):
                if isinstance(result, DataError):
                    damaged.append(str(result))
                else:
                    hashes[split].append(result)
    if damaged:
        more = f" and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
        text = f"{len(damaged)} damaged images: {'; '.join(damaged[:SHOWN])}{more}"
        return [Problem("wrong", text)], []
    seen = {*hashes["train"], *hashes["val"]}
    doubled = [str(image) for image, key in zip(splits["test"].images, hashes["test"], strict=True) if key in seen]
    if not doubled:
        return [], []
    shown = ", ".join(doubled[:SHOWN]) if task.folder else "(procedural)"
    return [], [f"{len(doubled)} test images are byte for byte in train or val: {shown}"]


def _decoded(image: Path | np.ndarray) -> str:
    """The hash of an image that can be decoded."""
    key = probe(image).sha256
    decode(image, None, key)
    return key
