"""Report of one epoch of training, as plain data without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochFacts:
    """Measurements of one epoch."""

    loss: float
    """Mean training loss."""
    lr: float
    """Learning rate of the last step."""
    images: int
    seconds: float
    accuracy: float | None = None
    """Accuracy on the evaluated split in [0, 1], if it is evaluated after each epoch."""

    @property
    def images_per_second(self) -> float:
        """Training images per second."""
        return self.images / self.seconds if self.seconds else 0.0
