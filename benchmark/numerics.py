"""How cells are computed, as against what: it moves numbers by rounding at most, so it is recorded, not hashed."""

from dataclasses import dataclass
from typing import Literal, get_args

Engine = Literal["eager", "compiled", "graphs", "compiled_graphs"]
"""How the backbone with its method is run: as it is written; through Inductor; as CUDA graphs, which are ready in
seconds; or as CUDA graphs of Inductor's kernels.  Head, loss and optimiser are eager in all of them."""

ENGINES: tuple[Engine, ...] = get_args(Engine)


@dataclass(frozen=True)
class Numerics:
    threads: int = 2
    """Of torch; a fixed number and not the core count, so that machines agree."""
    engine: Engine = "eager"
    checkpointing: bool = False
    """Keep no activations inside blocks and compute them again in the backward pass: less memory, more time."""
