"""Errors of backbones and of single runs, and how to recognise a lack of memory."""

import gc
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...methods import Method


class BackboneError(Exception):
    """The backbone or its weights cannot be used."""


class Diverged(Exception):
    """The training loss or the predictions are no longer finite."""


class OutOfMemory(Exception):
    """Not even one image at a time fits into memory."""


class LossTermError(TypeError):
    """`loss` or `penalty` of a method returned something that cannot be trained on."""


LONGEST = 20_000
"""Most characters of a message or traceback that are kept (ours)."""

OOM_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""Texts of torch's allocators, CUDA and its libraries, for errors without a class of their own."""


def is_oom(error: BaseException) -> bool:
    """Return True if the error, or its cause, means that GPU or host memory ran out."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and not any(cause is seen for seen in causes):
        causes.append(cause)
        cause = cause.__cause__  # the compiler wraps errors
    return any(
        isinstance(cause, torch.OutOfMemoryError | MemoryError)
        or (isinstance(cause, RuntimeError) and any(text in message_of(cause) for text in OOM_MESSAGES))
        for cause in causes
    )


def message_of(error: BaseException) -> str:
    """Return the error's message as valid text of bounded length, even if its `__str__` raises an error."""
    try:
        return valid_text(str(error))
    except BaseException as second:  # code of a method
        return f"(its message cannot be shown: {type(second).__name__})"


def valid_text(text: str) -> str:
    """Return text that can be encoded; the middle of a very long one is left out."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return text.encode(errors="backslashreplace").decode()


def one_line_message(error: BaseException) -> str:
    """Return the error's message without the details that allocators append."""
    return (message_of(error) or type(error).__name__).partition("\n")[0].partition(". GPU ")[0]


def free_memory(device: torch.device) -> None:
    """Release unused memory; tensors in reference cycles of tracebacks need the garbage collector."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


SMALLER_LR = "Use a smaller learning rate: --set lr=VALUE, or choose it by `vtab-peft tune`"
"""Advice after a diverged run."""
WHOLE_BATCH = "needs whole batches, because its norms or its loss compare images"
"""Reason why a method's batches are not split, after its name."""


def divergence(losses: Sequence[float], epoch: int, epochs: int, lr: float) -> Diverged:
    """Return the error for an epoch, from 0, whose mean loss is not finite; `losses` are those of its steps."""
    step = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses) - 1)
    before = ", ".join(f"{loss:.4g}" for loss in losses[max(step - 3, 0) : step])
    return Diverged(
        f"the training loss became {losses[step]} in epoch {epoch + 1} of {epochs}, step {step + 1} of {len(losses)}"
        f"{f', after {before}' if before else ''}, at a peak learning rate of {lr:g}. " + SMALLER_LR
    )


def loss_term(method: Method, member: str, term: Any) -> Tensor:
    """Return what the member `loss` or `penalty` of a method returned, if it is a loss term.

    A float would be added without any effect on the training.

    Raises:
        LossTermError: it is not a scalar tensor that requires grad.
    """
    if isinstance(term, Tensor) and term.ndim == 0 and term.requires_grad:
        return term
    code = getattr(inspect.unwrap(getattr(type(method), member)), "__code__", None)
    where = f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""
    if not isinstance(term, Tensor):
        found = f"an object of type {type(term).__name__}"
    else:
        found = f"a tensor of shape {tuple(term.shape)}" if term.ndim else "a tensor that requires no grad"
    wanted = "a scalar tensor that requires grad" + ", or None" * (member == "penalty")
    raise LossTermError(
        f"`{type(method).__name__}.{member}`{where} returned {found}; it must return {wanted}. Compute it from "
        "parameters or logits by functions of torch, without float(), item(), detach() or no_grad(), and end with "
        "mean() or sum()"
    )
