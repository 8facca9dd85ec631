"""Costs beside accuracies: the columns of cost records, and the records that belong to the rows of a leaderboard."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line imports this file, and --help shall be fast
    from ..storage.costs import Cost, Setup


@dataclass(frozen=True)
class CostColumn:
    """A column of `leaderboard.csv`, which is also an axis of figures."""

    text: str
    """Text of the axis, with the unit and the names of batches of the setup."""
    value: Callable[["Cost"], float]
    higher_is_better: bool = False

    def label(self, setup: "Setup") -> str:
        """Return the heading of the column, or the label of the axis."""
        return self.text.format(small=setup.batches[0], large=setup.batches[-1], train=setup.train_batch)


COLUMNS: dict[str, CostColumn] = {
    "latency_ms": CostColumn("Latency at batch {small} (ms)", lambda cost: cost.trained.latency[0].milliseconds),
    "deployed_latency_ms": CostColumn(
        "Latency at batch {small}, deployed (ms)", lambda cost: cost.deployed.latency[0].milliseconds
    ),
    "images_per_second": CostColumn(
        "Images per second at batch {large}", lambda cost: cost.trained.latency[-1].images_per_second, True
    ),
    "deployed_images_per_second": CostColumn(
        "Images per second at batch {large}, deployed", lambda cost: cost.deployed.latency[-1].images_per_second, True
    ),
    "gflops": CostColumn("GFLOPs per image", lambda cost: cost.trained.flops / 1e9),
    "deployed_gflops": CostColumn("GFLOPs per image, deployed", lambda cost: cost.deployed.flops / 1e9),
    "step_ms": CostColumn("Training step of {train} images (ms)", lambda cost: cost.training.step_milliseconds),
    "step_gflops": CostColumn("GFLOPs per step of {train} images", lambda cost: cost.training.flops / 1e9),
    "train_memory_mb": CostColumn("Peak memory of training (MB)", lambda cost: cost.training.peak_bytes / 1e6),
    "adapter_kb": CostColumn("Adapter (kB)", lambda cost: cost.adapter_bytes / 1e3),
}
"""Latencies are those of the smallest batch of the setup, images per second those of the largest."""


def costs_of_rows(
    rows: Sequence[dict[str, Any]], backbone: str, image_size: int, costs: Iterable["Cost"]
) -> "tuple[Setup | None, list[Cost | None]]":
    """Return the setup that measured most rows, and each row's record in it; None where there is none.

    Costs of different setups cannot be compared, so a leaderboard shows those of one.
    """
    by_setup: dict[Setup, dict[tuple[Any, ...], Cost]] = defaultdict(dict)
    for cost in costs:
        if (cost.backbone, cost.setup.image_size) == (backbone, image_size):
            ref = cost.method
            by_setup[cost.setup][ref.name, ref.args_json, ref.version, ref.plugin] = cost
    wanted = [(row["identity"][0], row["args"], row["method_version"], row["plugin"]) for row in rows]
    found = {setup: [known.get(row) for row in wanted] for setup, known in by_setup.items()}
    if not any(map(any, found.values())):
        return None, [None] * len(rows)
    best = max(sorted(found), key=lambda setup: sum(cost is not None for cost in found[setup]))
    return best, found[best]
