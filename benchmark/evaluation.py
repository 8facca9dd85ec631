"""What is trained, how it predicts, and how good its best epoch would have been."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.cache import CachedTask
from ..datasets.task import SplitName
from .adapter import Injected
from .live import Live
from .measure import now

EVAL_BATCH = 128
"""Images per forward pass in evaluation; fixed, so that the same cell sums in the same order everywhere."""

Tell = Callable[[str, int, int], None]
"""Receives (phase, done, of), phase being "train" in epochs or "test" in images."""


@dataclass(frozen=True)
class Classifier:
    """What is trained: features [b, d] by `injected.vit`, logits [b, k] by `head`."""

    injected: Injected
    head: nn.Linear
    features: Callable[[Tensor], Tensor]
    """uint8 [b, 3, h, w] -> fp32 [b, d]"""


@torch.no_grad()
def predict(model: Classifier, images: np.ndarray, live: Live, tell: Tell) -> np.ndarray:
    """images: memory-mapped [n, 3, h, w] uint8, read a batch at a time; returns [n] class indices."""
    model.injected.vit.eval()
    predictions = []
    for start in range(0, len(images), EVAL_BATCH):
        batch = torch.from_numpy(np.array(images[start : start + EVAL_BATCH])).to(live.device)
        features = live.filled(model.features, batch, EVAL_BATCH)
        predictions.append(model.head(features).argmax(dim=1).cpu())
        tell("test", min(start + EVAL_BATCH, len(images)), len(images))
    return torch.cat(predictions).numpy()


@dataclass
class Oracle:
    """Judges the model on the evaluation split after every epoch, as many papers do.

    It exists to show what that habit is worth.  Training does not notice: nothing random is drawn in an evaluation.
    """

    data: CachedTask
    split: SplitName
    live: Live
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
