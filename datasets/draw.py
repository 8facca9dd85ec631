"""Draw the splits of a task from labelled images: stratified by class, and the same on every machine.

The order of a draw is that of SHA-256 over `<seed> <key>`, where a key is an image's path in its source.  It depends on
no library, no clock and no order of files.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from .labelled import LabelledImages
from .raw.source import Examples
from .task import DataError, SplitName

TRAIN = 1000
"""Images in train and val together, as in VTAB-1k."""
VAL_SHARE = 0.2
"""Share of val in them, as in VTAB-1k."""
TEST_SHARE = 0.2
"""Least share of test where a source has no test images (ours)."""


def draw(
    images: LabelledImages, train: int = TRAIN, val_share: float = VAL_SHARE, seed: int = 0
) -> dict[SplitName, Examples]:
    """Return the splits: `train` images in train and val together, a share of them in val, and all test images.

    Fewer are drawn if the source has fewer.  Sources with subsets keep them: test is their test set, or their val if
    they have no test; val is drawn from their val if they have both, else from train.  Sources without subsets, or
    with train alone, give test every image that is not drawn, and at least `TEST_SHARE` of all.

    Raises:
        DataError: a split would be empty.
    """
    parts = dict(images.subsets)
    pool = parts.get("train") or parts["all"]
    given_test = parts.get("test") or parts.get("val")
    given_val = parts.get("val") if "test" in parts else None
    order = _order(pool, seed)
    limit = len(pool) if given_test else len(pool) - int(np.ceil(TEST_SHARE * len(pool)))
    for_val = round(min(train, limit) * val_share)
    drawn = _stratified(pool, order, min(train - for_val if given_val else train, limit))
    chosen = pool.take(drawn)
    if given_val:
        own = _order(given_val, seed)
        train_part, val = chosen, given_val.take(_stratified(given_val, own, min(for_val, len(given_val))))
    else:
        in_val = set(_stratified(chosen, range(len(chosen)), for_val))
        train_part = chosen.take([i for i in range(len(chosen)) if i not in in_val])
        val = chosen.take(sorted(in_val))
    used = set(drawn)
    test = given_test or pool.take([i for i in order if i not in used])
    splits: dict[SplitName, Examples] = {"train": train_part, "val": val, "test": test}
    if empty := [split for split, part in splits.items() if not len(part)]:
        sizes = ", ".join(f"{len(part)} in {subset}" for subset, part in images.subsets.items())
        raise DataError(
            f"{images.name} has too few images ({sizes}): {empty[0]} would be empty; add images, or change --train or "
            "--val-share"
        )
    return splits


def _order(examples: Examples, seed: int) -> list[int]:
    """Return all positions in the order of the draw."""

    def digest(position: int) -> bytes:
        return hashlib.sha256(f"{seed} {examples.keys[position]}".encode()).digest()

    return sorted(range(len(examples)), key=digest)


def _stratified(examples: Examples, order: Sequence[int], count: int) -> list[int]:
    """Return `count` positions, the first of each class in `order`, in that order.

    Each class gets one image if there are enough, and the rest is in proportion to the sizes, by largest remainders.
    """
    sizes = np.bincount(np.asarray(examples.labels, np.int64))
    present = np.flatnonzero(sizes)
    taken = np.zeros_like(sizes)
    if count >= len(present):
        taken[present] = 1
    rest, left = sizes - taken, count - int(taken.sum())
    quotas = left * rest
    taken += quotas // max(int(rest.sum()), 1)
    largest = np.argsort(-(quotas % max(int(rest.sum()), 1)), kind="stable")
    taken[largest[: count - int(taken.sum())]] += 1
    chosen = []
    for position in order:
        label = examples.labels[position]
        if taken[label]:
            taken[label] -= 1
            chosen.append(position)
    return chosen
