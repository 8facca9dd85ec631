"""Angles between the vectors of a matrix, compared with those of random vectors.

In D dimensions two random directions are nearly orthogonal: their cosine has mean 0 and standard deviation
1 / sqrt(D), and (1 + cos) / 2 is Beta((D - 1) / 2, (D - 1) / 2).  Equivalently, the angle has density proportional to
sin(angle)^(D - 2) (Cai, Fan and Jiang, JMLR 2013).  In 768 dimensions two thirds of all random pairs are within 2.1
degrees of 90, so each statistic is reported with its range for Gaussian matrices of the same shapes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import stats

MOST_VECTORS = 128
"""Maximum number of vectors of one matrix, evenly spaced (our choice: 8,128 pairs)."""
GRID = 2000
"""Points at which distribution functions are compared; a distance is exact to 1 / 4000."""
FEWEST_DRAWS, MOST_DRAWS, PAIRS = 40, 200, 1_000_000
"""Limits of the draws of random matrices, and the number of pairs that they should give (our choice)."""


@dataclass(frozen=True)
class Angles:
    """Statistics of the angles of all pairs of vectors within each of several matrices of one dimension."""

    dimension: int
    pairs: int
    left_out: int
    """Number of vectors of length zero, which have no direction."""
    mean: float
    """Mean angle in degrees."""
    off_90: float
    """Root mean square distance from 90 degrees."""
    spread: float
    """Root mean square cosine times sqrt(D): 0 for orthogonal vectors, 1 for random directions."""
    distance: float
    """Kolmogorov-Smirnov distance of the cosines from those of random directions: 1/2 for orthogonal vectors."""


@dataclass(frozen=True)
class Null:
    """Ranges that contain 95 % of the draws of Gaussian matrices with the same shapes."""

    draws: int
    spread: tuple[float, float]
    distance: tuple[float, float]


@dataclass(frozen=True)
class Group:
    """Angles of one kind of vectors over all blocks."""

    of: str
    """"pretrained q", or the method spec of a run."""
    side: str
    """"rows", "columns", "down" or "up"."""
    when: str
    """"start" (at initialisation) or "trained"; empty for pretrained weights."""
    angles: Angles
    null: Null
    cosines: np.ndarray = field(repr=False)
    """[pairs] cosines for the figure."""


def groups(of: str, side: str, when: str, matrices: Sequence[np.ndarray]) -> Iterator[Group]:
    """Yield one group per dimension; matrices of zeros, such as initial up-projections, give none."""
    for dimension in sorted({matrix.shape[1] for matrix in matrices}):
        subset = [thinned(matrix) for matrix in matrices if matrix.shape[1] == dimension]
        angles = measure(subset)
        if angles is not None:
            shapes = tuple((int((np.linalg.norm(matrix, axis=1) > 0).sum()), dimension) for matrix in subset)
            yield Group(of, side, when, angles, null(shapes), pooled(subset))


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Return the cosines [pairs] of all pairs of nonzero rows of an array [n, D]."""
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors[lengths > 0] / lengths[lengths > 0, None]
    first, second = np.triu_indices(len(unit), k=1)
    return np.clip((unit @ unit.T)[first, second], -1, 1)


def thinned(vectors: np.ndarray) -> np.ndarray:
    """Select at most `MOST_VECTORS` rows, evenly spaced."""
    if len(vectors) <= MOST_VECTORS:
        return vectors
    return vectors[np.linspace(0, len(vectors) - 1, MOST_VECTORS).round().astype(int)]


def pooled(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Return the cosines within each matrix, concatenated."""
    return np.concatenate([cosines(matrix) for matrix in matrices])


def measure(matrices: Sequence[np.ndarray]) -> Angles | None:
    """Compute the statistics of matrices [n, D] of one D; None without a pair of nonzero vectors."""
    (dimension,) = {matrix.shape[1] for matrix in matrices}
    found = pooled(matrices)
    if not len(found):
        return None
    degrees = np.degrees(np.arccos(found))
    return Angles(
        dimension=dimension,
        pairs=len(found),
        left_out=int(sum((np.linalg.norm(matrix, axis=1) == 0).sum() for matrix in matrices)),
        mean=float(degrees.mean()),
        off_90=float(np.sqrt(np.mean((degrees - 90) ** 2))),
        spread=_spread(found, dimension),
        distance=distance(found, dimension),
    )


def _spread(found: np.ndarray, dimension: int) -> float:
    return float(np.sqrt(np.mean(found**2) * dimension))


def distance(found: np.ndarray, dimension: int) -> float:
    """Return the Kolmogorov-Smirnov distance, on a grid, between cosines and those of random directions."""
    places, heights = _grid(dimension)
    below = np.bincount(np.searchsorted(places, found, side="left"), minlength=GRID + 1).cumsum()[:-1] / len(found)
    return float(np.abs(below - heights).max())


@lru_cache(maxsize=16)
def _grid(dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and the probability that a random pair has a smaller one."""
    heights = (np.arange(GRID) + 0.5) / GRID
    half = (dimension - 1) / 2
    return 2 * stats.beta.ppf(heights, half, half) - 1, heights


def density(degrees: np.ndarray, dimension: int) -> np.ndarray:
    """Return the density per degree of the angle between two random directions in D dimensions."""
    half = (dimension - 1) / 2
    radians = np.radians(degrees)
    return stats.beta.pdf((1 + np.cos(radians)) / 2, half, half) * np.sin(radians) / 2 * np.pi / 180


@lru_cache(maxsize=64)
def null(shapes: tuple[tuple[int, int], ...]) -> Null:
    """Draw Gaussian matrices of the given shapes (n, D) with a fixed seed."""
    rng = np.random.default_rng(0)
    pairs = sum(n * (n - 1) // 2 for n, _ in shapes)
    draws = min(max(PAIRS // max(pairs, 1), FEWEST_DRAWS), MOST_DRAWS)
    found = [pooled([rng.standard_normal(shape) for shape in shapes]) for _ in range(draws)]
    spreads = [_spread(one, shapes[0][1]) for one in found]
    distances = [distance(one, shapes[0][1]) for one in found]
    return Null(draws, _middle(spreads), _middle(distances))


def _middle(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
