"""What goes wrong inside a cell, told so that somebody can act on it."""

import gc
import math
from collections.abc import Sequence

import torch


class Diverged(Exception):
    """Training ended in numbers that are not finite."""


class OutOfMemory(Exception):
    """The work does not fit into memory, not even one image at a time."""


NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""What torch's allocators, CUDA and its libraries say, where their errors have no class of their own."""


def is_oom(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, means that memory was short, the GPU's or the machine's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY):
        return True
    return error.__cause__ is not None and is_oom(error.__cause__)  # a compiler wraps what it meets


def one_line_message(error: BaseException) -> str:
    """An error without the pages that allocators add."""
    return (str(error) or type(error).__name__).partition("\n")[0].partition(". GPU ")[0]


def free_memory(device: torch.device) -> None:
    """Give back what nothing needs any more; errors and their tracebacks hold tensors in circles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def divergence(losses: Sequence[float], epoch: int, epochs: int, lr: float) -> Diverged:
    """losses: of the steps of an epoch (from 0) whose sum is not finite.  lr: the recipe's."""
    step = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses) - 1)
    before = ", ".join(f"{loss:.4g}" for loss in losses[max(step - 3, 0) : step])
    return Diverged(
        f"the training loss became {losses[step]} in epoch {epoch + 1} of {epochs}, step {step + 1} of {len(losses)}"
        f"{f', after {before}' if before else ''}, at a peak learning rate of {lr:g}; this cell needs a smaller one: "
        "take another recipe, or let `tune` choose"
    )
