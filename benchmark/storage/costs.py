"""Cost records: what a method costs on a device, one JSON file each.

    results/costs/<backbone>/<method>/<cost ID>.json

The cost ID is a hash of backbone, method and setup.  Costs depend on the shape of the backbone and not on its weights.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ...datasets.schema import Count, Invalid, Positive, from_json
from ..canonical import fingerprint
from ..spec import ImageSize, MethodRef
from .layout import Provenance
from .side_records import RecordKind

SCHEMA = 1
"""Version of the record's layout."""
Form = Literal["merged", "with skipped tokens", "trained"]
"""The form of a model with the least work that gives the same features: merged into the backbone, with tokens skipped,
or as it is trained."""
Measured = Annotated[float, msgspec.Meta(gt=0)]
"""A measured time or rate."""


@dataclass(frozen=True, kw_only=True, order=True)
class Setup:
    """The conditions that costs must share to be compared, beside the backbone."""

    device: str
    precision: Literal["bf16", "fp32"]
    threads: Positive
    """Threads of torch on the CPU."""
    image_size: ImageSize
    train_batch: Positive
    batches: tuple[Positive, ...]
    """Batches of inference, smallest first."""

    def __str__(self) -> str:
        size = f"{self.image_size} px, trained with batch {self.train_batch}"
        return f"{self.device}, {self.precision}, {self.threads} thread{'s' * (self.threads > 1)}, {size}"


class Latency(msgspec.Struct, frozen=True):
    """Time of a forward pass with the head."""

    batch: Positive
    milliseconds: Measured
    """Median over passes, each waiting for the device."""

    @property
    def images_per_second(self) -> float:
        """Throughput, one batch after the other."""
        return 1000 * self.batch / self.milliseconds


class Inference(msgspec.Struct, frozen=True):
    """Cost of evaluating one form of a model."""

    flops: Count
    """FLOPs of one image at batch 1, without the head."""
    latency: Annotated[list[Latency], msgspec.Meta(min_length=1)]
    """One entry per batch of the setup, in its order."""


class Training(msgspec.Struct, frozen=True):
    """Cost of a training step."""

    flops: Count
    """FLOPs of a step, without head and loss."""
    step_milliseconds: Measured
    images_per_second: Measured
    peak_bytes: Positive
    images: Positive | None = None
    """Images per epoch; None if a version without this field measured."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """A cost record: the costs of one method on one backbone in one setup."""

    schema: Count
    backbone: str
    """timm's name with its tag."""
    method: MethodRef
    title: str
    setup: Setup
    trainable_params: Count
    """Without the head."""
    adapter_bytes: Count
    training: Training
    trained: Inference
    """The model as it is trained and evaluated."""
    deployed_as: Form
    deployed: Inference
    """Equal to `trained` if there is no other form."""
    provenance: Provenance


def cost_id(backbone: str, method: MethodRef, setup: Setup) -> str:
    """Return the hash of what a record measures."""
    return fingerprint([backbone, method.hashed(), asdict(setup)])


def path_of(root: Path, backbone: str, method: MethodRef, setup: Setup) -> Path:
    """Return the path of a record in a results folder."""
    names = (re.sub(r"^\.+|[^\w.+-]", "_", name) for name in (backbone, method.name))
    return root.joinpath("costs", *names, f"{cost_id(backbone, method, setup)}.json")


def _parse(data: bytes, path: Path) -> Cost:
    cost = from_json(data, Cost)
    if cost.schema > SCHEMA:
        raise Invalid("is from a newer version", "schema")
    for name in ("trained", "deployed"):
        if (
            tuple(latency.batch for latency in getattr(cost, name).latency) != cost.setup.batches
            or not cost.setup.batches
        ):
            raise Invalid("has other batches than the setup", f"{name}.latency")
    if path.stem != cost_id(cost.backbone, cost.method, cost.setup):
        raise Invalid("the file name is not the hash of backbone, method and setup", "method")
    return cost


COSTS = RecordKind("costs/*/*/*.json", _parse, "measure it again")
load_cost = COSTS.load


def save_cost(root: Path, cost: Cost) -> Path:
    """Write a record in place of an earlier one of the same backbone, method and setup; errors as `RecordKind.save`."""
    return COSTS.save(path_of(root, cost.backbone, cost.method, cost.setup), cost)


def load_costs(root: Path) -> tuple[list[Cost], list[str]]:
    """Return all records of a results folder, sorted by path, and a message for each that cannot be read."""
    found, problems = COSTS.load_all(root)
    return list(found.values()), problems
