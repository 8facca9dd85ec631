"""Noise for raw files of arrays, and what was read from them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from vtab_peft.datasets.raw.source import Examples

RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def same(examples: Examples, images: Mapping[str, np.ndarray], labels: Mapping[str, int]) -> bool:
    """Return whether the examples have these pixels and labels, looked up by their keys."""
    assert len(set(examples.keys)) == len(examples) > 0
    return all(
        label == labels[key] and np.array_equal(examples.picture(i), images[key])
        for i, (key, label) in enumerate(zip(examples.keys, examples.labels, strict=True))
    )


def numbered(values: Any) -> dict[str, Any]:
    return {str(row): value for row, value in enumerate(values)}
