"""How a run is computed.  These settings change numbers by rounding at most, so they are recorded but not hashed."""

from dataclasses import dataclass
from typing import Literal, get_args

Engine = Literal["eager", "compiled", "graphs", "compiled_graphs"]
"""How the backbone is executed: eagerly, compiled by Inductor, as CUDA graphs (ready in seconds), or as CUDA graphs of
Inductor's kernels.  Head, loss and optimiser are always eager."""

ENGINES: tuple[Engine, ...] = get_args(Engine)

EVAL_BATCH = {"cuda": 128, "mps": 128, "cpu": 32}
"""Default evaluation batch.  Our choice: on a CPU, 32 images of 224 pixels are a quarter faster than 128."""
MOST_THREADS = 1024
"""Largest number of torch's threads (ours): no machine has as many cores, and 100,000 end the process."""


@dataclass(frozen=True)
class Numerics:
    """Settings of the computation.

    Raises:
        ValueError: more than `MOST_THREADS` threads.
    """

    threads: int = 2
    """Threads of torch.  Fixed rather than the core count, so that machines agree."""
    engine: Engine = "eager"
    checkpointing: bool = False
    """Recompute activations inside blocks in the backward pass: less memory, more time."""
    micro_batch: int | None = None
    """Maximum images in a forward and backward pass; None for the whole batch.  Halved when memory runs out."""
    eval_batch: int | None = None
    """Images in a forward pass of an evaluation; None for `EVAL_BATCH`.  Halved when memory runs out."""

    def __post_init__(self) -> None:
        if self.threads > MOST_THREADS:
            raise ValueError(f"{self.threads:,} threads are too many; give at most {MOST_THREADS:,}")
