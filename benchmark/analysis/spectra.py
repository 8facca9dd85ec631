"""Norms and ranks of a matrix from its singular values."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Size:
    """Norms and ranks of one matrix: the update of a site in one block, or one projection."""

    of: str
    """Method spec of the run."""
    what: str
    """Kind of matrix: "update of q", "down", "up"."""
    when: str
    """"start" (at initialisation) or "trained"."""
    spectral: float
    frobenius: float
    effective_rank: float
    stable_rank: float
    relative: float | None
    """Frobenius norm divided by that of the pretrained weight; None for a projection."""


def size(of: str, what: str, when: str, matrix: np.ndarray, weight: np.ndarray | None = None) -> Size:
    """Compute the norms and ranks of a matrix; weight: the pretrained weight to which it is added."""
    values = np.linalg.svd(matrix, compute_uv=False)
    return Size(
        *(of, what, when),
        spectral=float(values.max(initial=0.0)),
        frobenius=float(np.linalg.norm(values)),
        effective_rank=effective_rank(values),
        stable_rank=stable_rank(values),
        relative=None if weight is None else float(np.linalg.norm(values) / np.linalg.norm(weight)),
    )


def effective_rank(values: np.ndarray) -> float:
    """Return exp of the entropy of the normalised singular values (Roy and Vetterli, EUSIPCO 2007).

    It is the rank if all nonzero singular values are equal, and 0 for a matrix of zeros.
    """
    shares = values[values > 0] / values.sum() if values.any() else values[:0]
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def stable_rank(values: np.ndarray) -> float:
    """Return (Frobenius / spectral norm)^2 (Rudelson and Vershynin, J. ACM 2007), 0 for a matrix of zeros."""
    return float((np.linalg.norm(values) / values.max()) ** 2) if values.any() else 0.0
