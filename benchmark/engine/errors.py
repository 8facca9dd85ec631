"""Errors of a single run, and how to recognise a lack of memory."""

import gc
import math
from collections.abc import Sequence

import torch


class Diverged(Exception):
    """The training loss or the predictions are no longer finite."""


class OutOfMemory(Exception):
    """Not even one image at a time fits into memory."""


OOM_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""Texts of torch's allocators, CUDA and its libraries, for errors without a class of their own."""


def is_oom(error: BaseException) -> bool:
    """Return True if the error, or its cause, means that GPU or host memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError) and any(text in str(error) for text in OOM_MESSAGES):
        return True
    return error.__cause__ is not None and is_oom(error.__cause__)  # the compiler wraps errors


def one_line_message(error: BaseException) -> str:
    """Return the error's message without the details that allocators append."""
    return (str(error) or type(error).__name__).partition("\n")[0].partition(". GPU ")[0]


def free_memory(device: torch.device) -> None:
    """Release unused memory; tensors in reference cycles of tracebacks need the garbage collector."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def divergence(losses: Sequence[float], epoch: int, epochs: int, lr: float) -> Diverged:
    """Return the error for an epoch, from 0, whose mean loss is not finite; `losses` are those of its steps."""
    step = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses) - 1)
    before = ", ".join(f"{loss:.4g}" for loss in losses[max(step - 3, 0) : step])
    return Diverged(
        f"the training loss became {losses[step]} in epoch {epoch + 1} of {epochs}, step {step + 1} of {len(losses)}"
        f"{f', after {before}' if before else ''}, at a peak learning rate of {lr:g}. "
        "Use a smaller learning rate: choose another recipe, or run `tune`"
    )
