"""Sizes of a matrix, from its singular values."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Size:
    """Of one matrix: what was learned at a site of one block, or one projection."""

    of: str
    what: str
    """"update of q", "down", "up"."""
    when: str
    """start or trained."""
    spectral: float
    frobenius: float
    effective_rank: float
    stable_rank: float
    relative: float | None
    """Frobenius norm over that of the pretrained weight; None for a projection."""


def size(of: str, what: str, when: str, matrix: np.ndarray, weight: np.ndarray | None = None) -> Size:
    """weight: the pretrained one that the matrix was added to."""
    values = np.linalg.svd(matrix, compute_uv=False)
    return Size(
        *(of, what, when),
        spectral=spectral(values),
        frobenius=frobenius(values),
        effective_rank=effective_rank(values),
        stable_rank=stable_rank(values),
        relative=None if weight is None else frobenius(values) / float(np.linalg.norm(weight)),
    )


def spectral(values: np.ndarray) -> float:
    """The largest singular value: the most by which the matrix can lengthen a vector."""
    return float(values.max(initial=0.0))


def frobenius(values: np.ndarray) -> float:
    """The root of the sum of squares of all entries."""
    return float(np.sqrt((values**2).sum()))


def effective_rank(values: np.ndarray) -> float:
    """exp of the entropy of the singular values as shares of their sum (Roy and Vetterli, EUSIPCO 2007).

    The rank, for a matrix whose singular values are equal; 0 for a matrix of zeros.
    """
    shares = values[values > 0] / values.sum() if values.sum() > 0 else values[:0]
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def stable_rank(values: np.ndarray) -> float:
    """(Frobenius norm / spectral norm)^2 (Rudelson and Vershynin, J. ACM 2007); 0 for a matrix of zeros."""
    return (frobenius(values) / spectral(values)) ** 2 if spectral(values) else 0.0
