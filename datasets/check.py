"""Check that the data of a task is complete and correct, and say what to do if it is not."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from .archive import HELP, MANIFEST, Problem, examine, manifest, origin, provenance, splits_of, with_real_paths
from .cache import default_root
from .first_of import first_of
from .labels import label_warnings
from .manifest import manifests
from .pixels import CORES, decode, in_order, probe
from .task import PROCEDURAL_SUITES, SPLITS, DataError, Split, SplitName, Task

DataState = Literal["found", "partial", "wrong", "missing"]
"""Usable, incomplete, incorrect, or absent."""
SHOWN = 10
"""Damaged or duplicate images that a message names (our choice)."""


@dataclass(frozen=True)
class CheckResult:
    """Result of checking a task's data."""

    state: DataState
    counts: dict[SplitName, int] = field(default_factory=dict)
    """Images of each split whose list can be read."""
    problems: tuple[str, ...] = ()
    """Reasons why the data cannot be used."""
    notes: tuple[str, ...] = ()
    """Warnings about data that can be used, but that may give wrong results."""
    provenance: str = "unknown"
    """`lossless`, `jpeg75` or `own`; `unknown` for unusable data."""
    advice: str = "ready"
    """What to do next."""


def check(task: Task, deep: bool = False, threads: int = CORES) -> CheckResult:
    """Check lists, labels and counts of a task, and that every listed image exists.

    `deep` also decodes every image, compares the splits with the checksums of `manifest.json` if it has some, looks
    for test images that are byte for byte in train or val, and checks the cached pixels of the task.  Such images are
    a note and not a problem, since some official test sets contain them.
    """
    if task.suite in PROCEDURAL_SUITES:
        counts: dict[SplitName, int] = {split: sizes[0] for split, sizes in task.sizes.items()}
        notes = [*_check_images(task, task.load(task), threads)[1], *_damaged_cache(task)] if deep else []
        return CheckResult("found", counts, notes=tuple(notes), provenance=task.provenance)
    listings, problems = examine(task)
    pixels, notes = "unknown", []
    try:
        pixels = provenance(task, chain.from_iterable(listing.files for listing in listings.values()))
    except DataError as error:
        problems.append(Problem("wrong", str(error)))
    if not problems:
        notes = label_warnings(task, {split: listing.labels for split, listing in listings.items()})
    if deep and not problems:
        problems, found = _check_images(task, splits_of(task, listings), threads)
        notes += [*found, *_damaged_cache(task)]
    worst_first: tuple[DataState, ...] = ("missing", "wrong", "partial", "found")
    states: set[DataState] = {"found", *(problem.state for problem in problems)}
    state = min(states, key=worst_first.index)
    return CheckResult(
        state=state,
        counts={split: len(listing.files) for split, listing in listings.items()},
        problems=tuple(problem.text for problem in problems),
        notes=(*task.left_out, *notes),
        provenance=pixels if state == "found" else "unknown",
        advice=_advice(task, state),
    )


def _advice(task: Task, state: DataState) -> str:
    folder = origin(task.folder or Path())
    return {
        "found": "ready",
        "missing": f"put the task into {folder}; {HELP}",
        "partial": f"complete {folder}; {HELP}",
        "wrong": f"correct the problems in {folder}, or get the task from its source again; {HELP}",
    }[state]


def _check_images(task: Task, splits: dict[SplitName, Split], threads: int) -> tuple[list[Problem], list[str]]:
    """Report damaged images as problems, and test images that are also in train or val as notes."""
    damaged: list[str] = []
    hashes: dict[SplitName, list[str]] = {split: [] for split in SPLITS}
    with ThreadPoolExecutor(threads) as pool:
        for split in SPLITS:
            for result in in_order(_decoded_hash, splits[split].images, pool):
                if isinstance(result, DataError):
                    damaged.append(with_real_paths(str(result), task.folder))
                else:
                    hashes[split].append(result)
    if damaged:
        text = f"{len(damaged)} damaged image{'s' * (len(damaged) > 1)}: {first_of(damaged, SHOWN, '; ')}"
        return [Problem("wrong", text)], []
    if changed := _changed(task, splits, hashes):
        return [Problem("wrong", changed)], []
    seen = {*hashes["train"], *hashes["val"]}
    doubled = [str(image) for image, key in zip(splits["test"].images, hashes["test"], strict=True) if key in seen]
    if not doubled:
        return [], []
    shown = with_real_paths(first_of(doubled, SHOWN), task.folder) if task.folder else "(procedural)"
    return [], [f"{len(doubled)} test images are byte for byte in train or val: {shown}"]


def _changed(task: Task, splits: dict[SplitName, Split], hashes: dict[SplitName, list[str]]) -> str:
    """Return which splits differ from the checksums in the folder's manifest; empty if none does."""
    stated = manifest(task.folder).get("checksums") if task.folder else None
    if not isinstance(stated, dict):
        return ""
    found = {split: checksum_of(hashes[split], splits[split].labels) for split in SPLITS}
    differing = [split for split in SPLITS if stated.get(split, found[split]) != found[split]]
    what = f"images or labels changed after {task.folder}/{MANIFEST} was written"
    return f"{', '.join(differing)}: {what}" if differing else ""


def checksums(splits: dict[SplitName, Split]) -> dict[SplitName, str]:
    """Return a checksum of each split over its images and labels, in order, as manifests have it.

    Raises:
        DataError: an image cannot be read.
    """
    found: dict[SplitName, str] = {}
    with ThreadPoolExecutor(CORES) as pool:
        for split in SPLITS:
            hashes = []
            for result in in_order(probe, splits[split].images, pool):
                if isinstance(result, DataError):
                    raise result
                hashes.append(result.sha256)
            found[split] = checksum_of(hashes, splits[split].labels)
    return found


def checksum_of(hashes: Sequence[str], labels: Iterable[int]) -> str:
    """Return the SHA-256 over lines of an image's hash and its label."""
    lines = (f"{sha256} {label}\n" for sha256, label in zip(hashes, labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _damaged_cache(task: Task) -> list[str]:
    """Report cached arrays of a task, at any size, that differ from their checksums."""
    root, folder = default_root(), None if task.folder is None else str(task.folder)
    own = [manifest for _, manifest in manifests(root) if manifest and manifest.task == task.label]
    damaged = {path for manifest in own if manifest.folder == folder for path in manifest.damaged(root, full=True)}
    return [
        f"the cached pixels or labels in {path} are damaged, and runs may have used them: delete this file, and the "
        "next run decodes it again"
        for path in sorted(damaged)
    ]


def _decoded_hash(image: Path | np.ndarray) -> str:
    """Decode an image and return its hash."""
    key = probe(image).sha256
    decode(image, None, key)
    return key
