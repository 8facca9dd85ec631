"""Terms of the generalisation bound in the AOFT paper.

    E (1/m) sup_{|W| <= g} | sum_i xi_i W x_i |  <=  (g / m) E | sum_i xi_i x_i |

with m inputs x_i, independent random signs xi_i, and any W of spectral norm at most g.  This is a Rademacher complexity
(Bartlett and Mendelson, JMLR 2002).  By Jensen's inequality the expectation is at most (sum_i |x_i|^2)^(1/2).
"""

from dataclasses import dataclass

import numpy as np

DRAWS = 1000
"""Draws of the signs; the noise of the expectation is below 1 % (our choice)."""


@dataclass(frozen=True)
class Bound:
    """Terms of one module."""

    name: str
    gain: float
    """g."""
    inputs: int
    """m."""
    expectation: float
    """E | sum_i xi_i x_i |, estimated by drawing the signs."""
    at_most: float
    """Upper bound of the expectation by Jensen's inequality."""
    bound: float
    """(g / m) E | sum_i xi_i x_i |"""


def rademacher(name: str, gain: float, x: np.ndarray) -> Bound:
    """Compute the terms of one module; x: [m, D] inputs.  The random signs have a fixed seed."""
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (DRAWS, len(x)))
    expectation = float(np.linalg.norm(signs @ x, axis=1).mean())
    at_most = float(np.sqrt((x**2).sum()))
    return Bound(name, gain, len(x), expectation, at_most, gain / len(x) * expectation)
