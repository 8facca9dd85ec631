"""Independent random streams, each derived from the seed of a run."""

import hashlib
from enum import Enum


class Stream(Enum):
    """Uses of randomness in a run.  The values never change, because stored results depend on them."""

    INITIAL_VALUES = "initial values"
    """Initial values of the parameters that a method adds."""
    HEAD = "head"
    """Initial weights of the classifier."""
    PERMUTATIONS = "permutations"
    """Order of the training images in each epoch."""
    CROPS = "crops"
    FLIPS = "flips"
    DROPOUT = "dropout"
    """Dropout and drop-path."""


def derive_seed(seed: int, stream: Stream) -> int:
    """Return the generator seed of one stream of the run with this `seed`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream.value}".encode()).digest()[:6], "big")
