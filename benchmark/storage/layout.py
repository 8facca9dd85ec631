"""The schemas of the JSON files in `runs/` and `failed/`; `schema.py` turns them into `Run` and `Failure`."""

from typing import Annotated, NotRequired, TypedDict

import msgspec

from ...datasets.schema import Count, Positive, Whole
from ..spec import SpecText

LARGEST_RECORD = 1 << 24
"""Bytes of the largest record that is read (ours; the largest committed one has 7 kB)."""
LARGEST_CLASSES = 2**16
"""Most classes of a task: predictions are stored as 16-bit numbers."""
Accuracy = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Result(msgspec.Struct):
    accuracy: Accuracy
    trainable_params: Whole
    head_params: Whole
    total_params: Whole
    train_seconds: float
    eval_seconds: float
    images_per_second: float
    peak_bytes: Whole
    adapter_bytes: Whole
    per_class_accuracy: list[Accuracy | None] | None = None
    loss_curve: list[float] | None = None
    oracle_accuracy: Accuracy | None = None
    oracle_epoch: Count | None = None


class Tuning(TypedDict, total=False):
    """How `tune` chose the settings of a run."""

    val_key: str
    val_accuracy: float | None
    configurations: Count
    grid: Count


class _Facts(msgspec.Struct):
    title: str
    group: str
    classes: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_CLASSES)]
    test_images: Positive | None = None
    tuning: Tuning = {}
    data_warnings: list[str] = []


class _Numerics(TypedDict, total=False):
    threads: Positive
    engine: str
    checkpointing: bool
    micro_batch: Positive | None
    eval_batch: Positive | None
    cpu: str


class _Plugin(TypedDict):
    file: str
    sha256: str
    backbone: NotRequired[bool]
    """True if it defines the backbone; missing in records of older versions."""


class Provenance(TypedDict, total=False):
    """When, where, by which command and with which versions a run was made."""

    created: str
    git_sha: str | None
    git_dirty: bool | None
    versions: dict[str, str]
    device: str
    numerics: _Numerics
    argv: list[str]
    concurrent_runs: Positive
    plugins: list[_Plugin]


class Record(msgspec.Struct):
    """A file in `runs/`; unknown fields are ignored, except in the spec."""

    schema: Count
    protocol: Count
    key: str
    spec: SpecText
    predictions_sha256: str
    result: _Result
    facts: _Facts
    provenance: Provenance


class Versions(msgspec.Struct):
    """The versions of a record, whatever else it holds."""

    schema: Count
    protocol: Count


class FailureRecord(msgspec.Struct):
    """A file in `failed/`."""

    key: str
    spec: SpecText
    reason: str
    traceback: str
    error_type: str = ""
