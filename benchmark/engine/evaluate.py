"""What is trained, how it predicts, and how good its best epoch would have been."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ...datasets.cache import CachedTask
from ...datasets.task import SplitName
from .errors import Diverged, is_oom, one_line_message
from .injection import Injected
from .live_model import LiveModel
from .timing import now

ProgressFn = Callable[[str, int, int], None]
"""Receives (phase, done, of), phase being "train" in epochs, "test" in images, or the download of one file."""


@dataclass(frozen=True)
class Classifier:
    """What is trained: features [b, d] by `injected.vit`, logits [b, k] by `head`."""

    injected: Injected
    head: nn.Linear
    features: Callable[[Tensor], Tensor]
    """uint8 [b, 3, h, w] -> fp32 [b, d]"""


@torch.no_grad()
def predict(model: Classifier, images: np.ndarray, live: LiveModel, tell: ProgressFn) -> np.ndarray:
    """images: memory-mapped [n, 3, h, w] uint8, read a batch at a time; returns [n] class indices.

    Raises:
        Diverged: what the model computes is not a number.
        OutOfMemory: not even one image fits.
    """
    model.injected.vit.eval()

    def classes(part: slice) -> Tensor:
        logits = model.head(live.filled(model.features, to_device_async(images[part], live.device)))
        return torch.where(logits.isnan().any(dim=1), -1, logits.argmax(dim=1))

    predictions, done = [], 0
    for found in _arrived(in_parts(classes, len(images), live)):
        predictions.append(found)
        done += len(found)
        tell("test", done, len(images))
    answers = torch.cat(predictions).numpy()
    if (lost := int((answers < 0).sum())) > 0:
        raise Diverged(
            f"what the model computes for {lost} of {len(images)} images is not a number, though the training loss "
            "was one; this cell needs a smaller learning rate: take another recipe, or let `tune` choose"
        )
    return answers


def to_device_async(images: np.ndarray, device: torch.device) -> Tensor:
    """Read into memory, and sent to the device, which goes on with what it was doing."""
    read = torch.from_numpy(np.array(images))
    return (read.pin_memory() if device.type == "cuda" else read).to(device, non_blocking=True)


def _arrived(parts: Iterator[Tensor]) -> Iterator[Tensor]:
    """Each on the CPU, while the device works on the next one; never more than one ahead."""
    before = next(parts)
    for part in parts:
        yield before.cpu()
        before = part
    yield before.cpu()


@torch.no_grad()
def warm_up(features: Callable[[Tensor], Tensor], shape: tuple[int, ...], live: LiveModel) -> float:
    """Evaluate black images [3, h, w] with the model in evaluation mode; returns the seconds it took."""
    started = now(live.device)

    def black(part: slice) -> Tensor:
        batch = torch.zeros(part.stop - part.start, *shape, dtype=torch.uint8, device=live.device)
        return live.filled(features, batch)

    list(in_parts(black, live.eval_batch, live))
    return now(live.device) - started


def in_parts(work: Callable[[slice], Tensor], n: int, live: LiveModel) -> Iterator[Tensor]:
    """`work` of n images, as many at a time as evaluations take, or fewer where memory is short.

    Raises:
        OutOfMemory: not even one image fits.
    """
    start = 0
    while start < n:
        size = live.eval_batch
        try:
            done = work(slice(start, min(start + size, n)))
        except Exception as error:
            if not is_oom(error):
                raise
            reason = one_line_message(error)
        else:
            start += size
            yield done
            continue
        live.halve("eval_batch", min(size, n - start), reason)  # out here, where the error no longer holds memory


@dataclass
class Oracle:
    """Judges the model on the evaluation split after every epoch, as many papers do.

    It exists to show what that habit is worth.  Training does not notice: nothing random is drawn in an evaluation.
    """

    data: CachedTask
    split: SplitName
    live: LiveModel
    accuracies: list[float] = field(default_factory=list)
    """After each epoch, in [0, 1]."""
    seconds: float = 0.0

    def look(self, model: Classifier) -> None:
        started = now(self.live.device)
        predictions = predict(model, self.data.images(self.split), self.live, lambda *_: None)
        self.accuracies.append(float((predictions == self.data.labels(self.split)).mean()))
        self.seconds += now(self.live.device) - started

    def best(self) -> tuple[float, int]:
        """The highest accuracy, and the epoch (from 1) that had it first."""
        best = max(self.accuracies)
        return best, 1 + self.accuracies.index(best)
