"""How cells are computed, as against what: it moves numbers by rounding at most, so it is recorded, not hashed."""

from dataclasses import dataclass
from typing import Literal, get_args

Engine = Literal["eager", "compiled", "graphs", "compiled_graphs"]
"""How the backbone with its method is run: as it is written; through Inductor; as CUDA graphs, which are ready in
seconds; or as CUDA graphs of Inductor's kernels.  Head, loss and optimiser are eager in all of them."""

ENGINES: tuple[Engine, ...] = get_args(Engine)

EVAL_BATCH = {"cuda": 128, "cpu": 32}
"""Ours: on a CPU 32 images of 224 pixels at a time go a quarter faster than 128."""


@dataclass(frozen=True)
class Numerics:
    threads: int = 2
    """Of torch; a fixed number and not the core count, so that machines agree."""
    engine: Engine = "eager"
    checkpointing: bool = False
    """Keep no activations inside blocks and compute them again in the backward pass: less memory, more time."""
    micro_batch: int | None = None
    """Images at most in a forward and backward pass, None: the whole batch; halved where memory is short."""
    eval_batch: int | None = None
    """Images in a forward pass of an evaluation, None: `EVAL_BATCH`; halved where memory is short."""
