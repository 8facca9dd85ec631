"""Predictions of the live model, in batches that shrink when memory runs out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ...datasets.cache import CachedTask
from ...datasets.task import SplitName
from .errors import Diverged, is_oom, one_line_message
from .live_model import LiveModel
from .timing import now

ProgressFn = Callable[[str, int, int], None]
"""Called with (phase, done, total): phase "train" in epochs, "test" in images, or a file to download."""


def no_progress(phase: str, done: int, total: int) -> None:
    """Report nothing."""


@torch.no_grad()
def predict(live: LiveModel, head: nn.Linear, images: np.ndarray, progress: ProgressFn = no_progress) -> np.ndarray:
    """Predict the class indices [n] of uint8 images [n, 3, h, w], reading one batch at a time.

    Raises:
        Diverged: the logits of an image are not a number.
        OutOfMemory: not even one image fits.
    """
    live.vit.eval()

    def predict_batch(batch: slice) -> Tensor:
        logits = head(live.padded_features(to_device_async(images[batch], live.device)))
        return torch.where(logits.isnan().any(dim=1), -1, logits.argmax(dim=1))

    batches, done = [], 0
    for predicted in prefetch(map_batches(predict_batch, len(images), live)):
        batches.append(predicted)
        done += len(predicted)
        progress("test", done, len(images))
    predictions = torch.cat(batches).numpy()
    if (invalid := int((predictions < 0).sum())) > 0:
        raise Diverged(
            f"the logits of {invalid} of {len(images)} images are not a number, although the last training loss was. "
            "Use a smaller learning rate: choose another recipe, or run `tune`"
        )
    return predictions


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
        live.halve("eval_batch", min(size, n - start), reason)  # outside `except`: the traceback holds tensors


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


@dataclass
class EpochEvaluator:
    """Evaluates after every epoch, to find the best test epoch that many papers report.

    It shows how much this habit gains.  It draws no random numbers, so training is unchanged.
    """

    data: CachedTask
    split: SplitName
    accuracies: list[float] = field(default_factory=list)
    """Accuracy after each epoch, in [0, 1]."""
    seconds: float = 0.0
    """Total time of the evaluations."""

    def evaluate(self, live: LiveModel, head: nn.Linear) -> None:
        """Evaluate the model as it is after an epoch."""
        started = now(live.device)
        predictions = predict(live, head, self.data.images(self.split))
        self.accuracies.append(float((predictions == self.data.labels(self.split)).mean()))
        self.seconds += now(live.device) - started

    def best(self) -> tuple[float, int]:
        """Return the highest accuracy and the first epoch, from 1, that reached it."""
        best = max(self.accuracies)
        return best, 1 + self.accuracies.index(best)
