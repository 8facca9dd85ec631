"""Predictions of the live model, in batches that shrink when memory runs out."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from .epoch import EpochFacts
from .errors import SMALLER_LR, Diverged, is_oom, one_line_message
from .live_model import LiveModel
from .timing import now

ProgressFn = Callable[..., None]
"""Called with (phase, done, total): phase "train" in epochs, "test" in images, or a file to download.  In training a
fourth argument has the `EpochFacts`."""


def no_progress(phase: str, done: int, total: int, epoch: EpochFacts | None = None) -> None:
    """Report nothing."""


@torch.no_grad()
def predict(
    live: LiveModel,
    head: nn.Linear,
    images: np.ndarray,
    progress: ProgressFn = no_progress,
    on_logits: Callable[[Tensor], None] | None = None,
) -> np.ndarray:
    """Predict the class indices [n] of uint8 images [n, 3, h, w], reading one batch at a time.

    `on_logits` receives the logits [b, k] of each batch in order, on the device.

    Raises:
        Diverged: the logits of an image are not a number.
        OutOfMemory: not even one image fits.
    """
    live.vit.eval()

    def predict_batch(batch: slice) -> Tensor:
        logits = compute_logits(live, head, images[batch])
        predicted = torch.where(logits.isnan().any(dim=1), -1, logits.argmax(dim=1))
        if on_logits is not None:
            on_logits(logits)
        return predicted

    batches, done = [], 0
    for predicted in prefetch(map_batches(predict_batch, len(images), live)):
        batches.append(predicted)
        done += len(predicted)
        progress("test", done, len(images))
    predictions = torch.cat(batches).numpy()
    if (invalid := int((predictions < 0).sum())) > 0:
        raise Diverged(
            f"the logits of {invalid} of {len(images)} images are not a number, although the last training loss was. "
            + SMALLER_LR
        )
    return predictions


@torch.no_grad()
def compute_logits(live: LiveModel, head: nn.Linear, images: np.ndarray) -> Tensor:
    """Compute the logits [b, k] of at most one evaluation batch, uint8 [b, 3, h, w] as cached.

    The evaluation of runs and the command `predict` share this path from pixels to classes.
    """
    return head(live.padded_features(to_device_async(images, live.device)))


def compact(logits: Tensor) -> Tensor:
    """Return logits [b, k] minus the largest of each image, in float16.

    Softmax and argmax stay the same, and rounding is finest for the classes that compete.
    """
    logits = logits.float()
    below = (logits - logits.amax(dim=1, keepdim=True)).nan_to_num(nan=0.0)  # infinity minus itself
    return below.clamp(min=torch.finfo(torch.float16).min).half()


def to_device_async(images: np.ndarray, device: torch.device) -> Tensor:
    """Copy images to the device; the copy to a GPU is asynchronous, from pinned memory."""
    loaded = torch.from_numpy(np.array(images))
    return (loaded.pin_memory() if device.type == "cuda" else loaded).to(device, non_blocking=True)


def prefetch(results: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yield each result on the CPU while the device computes the next one."""
    previous = next(results)
    for result in results:
        yield previous.cpu()
        previous = result
    yield previous.cpu()


def map_batches(compute: Callable[[slice], Tensor], n: int, live: LiveModel) -> Iterator[Tensor]:
    """Yield `compute(batch)` for consecutive batches of n images; halve the batch when memory runs out.

    Raises:
        OutOfMemory: not even one image fits.
    """
    start = 0
    while start < n:
        size = live.eval_batch
        try:
            result = compute(slice(start, min(start + size, n)))
        except Exception as error:
            if not is_oom(error):
                raise
            reason = one_line_message(error)
        else:
            start += size
            yield result
            continue
        live.halve("eval_batch", size, reason)  # outside `except`: the traceback holds tensors


@torch.no_grad()
def warm_up_evaluation(live: LiveModel, image_shape: tuple[int, ...]) -> float:
    """Compile the model in evaluation mode with black images [3, h, w]; return the seconds it took."""
    started = now(live.device)
    live.vit.eval()

    def black_images(batch: slice) -> Tensor:
        images = torch.zeros(batch.stop - batch.start, *image_shape, dtype=torch.uint8, device=live.device)
        return live.padded_features(images)

    list(map_batches(black_images, live.eval_batch, live))
    return now(live.device) - started
