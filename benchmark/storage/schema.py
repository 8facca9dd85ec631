"""The types of stored records, `Run` and `Failure`, and the table of runs."""

import json
import re
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...datasets.reading import naming, read_regular
from ...datasets.schema import Invalid, from_json
from ..canonical import canonical_json
from ..spec import PROTOCOL, RunSpec
from .json_io import StoreError
from .layout import LARGEST_RECORD, FailureRecord, Provenance, Record, Versions

if TYPE_CHECKING:
    import pandas as pd


SCHEMA = 1
"""Version of the record's layout.  The version of the protocol is part of the run ID instead."""
RECORD_NAME = re.compile(r"(?P<run_id>[0-9a-f]{16})(?:\.(?P<repetition>[2-9]|[1-9][0-9]+))?\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A stored run: its record, parsed and checked once."""

    path: Path
    """File of the record; predictions (.npz) and adapter (.safetensors) lie beside it."""
    repetition: int
    """Number of the repetition, from 1."""
    run_id: str
    spec: RunSpec
    title: str
    """Title of the method."""
    group: str
    """Group of the task."""
    classes: int
    test_images: int | None
    """Number of test images; None for validation runs and for records that lack it."""
    tuning: Mapping[str, Any]
    """How `tune` chose the settings; empty for other runs."""
    accuracy: float
    """Accuracy on the evaluated split after the last epoch, in [0, 1]."""
    per_class_accuracy: array | None
    """Accuracy of each class; NaN for a class without images."""
    loss_curve: array | None
    """Mean training loss of each epoch."""
    trainable_params: int
    """Trainable parameters without the head."""
    head_params: int
    total_params: int
    train_seconds: float
    eval_seconds: float
    images_per_second: float
    peak_bytes: int
    """Peak memory of the device in bytes."""
    adapter_bytes: int
    oracle_accuracy: float | None
    """Accuracy of the best epoch on the evaluated split; needs `--oracle`."""
    oracle_epoch: int | None
    predictions_sha256: str
    device: str
    """Device, and the number of runs that shared it: times of different devices are not comparable."""
    created: str
    """Time of the end of the run."""
    argv: tuple[str, ...]
    """Command that made the run."""
    environment: str
    """JSON text of the provenance without time and command; thousands of runs share one string."""

    @property
    def method_spec(self) -> str:
        """Short form of the method as the user gave it to `run` or `tune`."""
        return self.spec.method.asked or self.spec.method.spec

    @property
    def task_id(self) -> tuple[str, int, str]:
        """Name, version and data hash of the task."""
        return self.spec.task.name, self.spec.task.version, self.spec.task.data

    @property
    def normalisation(self) -> str:
        """Mean and standard deviation of the input, as text."""
        return _normalisation(self.spec.mean, self.spec.std)

    @property
    def configurations(self) -> int | None:
        """Number of configurations that `tune` tried."""
        return self.tuning.get("configurations")

    @property
    def provenance(self) -> dict[str, Any]:
        """When, where, by which command and with which versions the run was made."""
        timed = {"created": self.created} if self.created else {}
        return {**json.loads(self.environment), **timed, **({"argv": list(self.argv)} if self.argv else {})}

    @property
    def provenance_json(self) -> str:
        """Canonical JSON of `provenance`."""
        return canonical_json(self.provenance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The record of a run that failed."""

    spec: RunSpec
    reason: str
    traceback: str
    """Empty if the worker process died."""
    error_type: str
    """Name of the exception."""


COLUMNS: dict[str, str] = {
    "key": "run_id",
    "repetition": "repetition",
    "path": "path",
    "split": "spec.split",
    "seed": "spec.seed",
    "backbone": "spec.backbone.name",
    "backbone_sha256": "spec.backbone.sha256",
    "suite": "spec.task.suite",
    "task": "spec.task.name",
    "task_version": "spec.task.version",
    "data": "spec.task.data",
    "provenance": "spec.task.provenance",
    "group": "group",
    "classes": "classes",
    "method": "spec.method.name",
    "spec": "spec.method.spec",
    "asked": "method_spec",
    "title": "title",
    "method_version": "spec.method.version",
    "plugin": "spec.method.plugin",
    "args": "spec.method.args_json",
    "recipe": "spec.recipe.name",
    "recipe_base": "spec.recipe_base",
    "tuned": "spec.recipe.tuned",
    "configurations": "configurations",
    "lr": "spec.recipe.lr",
    "normalisation": "normalisation",
    "interpolation": "spec.interpolation",
    "image_size": "spec.recipe.image_size",
    "accuracy": "accuracy",
    "trainable_params": "trainable_params",
    "head_params": "head_params",
    "total_params": "total_params",
    "train_seconds": "train_seconds",
    "eval_seconds": "eval_seconds",
    "images_per_second": "images_per_second",
    "peak_bytes": "peak_bytes",
    "adapter_bytes": "adapter_bytes",
    "device": "device",
    "oracle_accuracy": "oracle_accuracy",
    "oracle_epoch": "oracle_epoch",
    "origin": "provenance_json",
}
"""Columns of `to_frame`: attribute of `Run`.  `args` and `origin` are JSON text."""
_GET = [attrgetter(attribute) for attribute in COLUMNS.values()]


def to_frame(runs: Iterable[Run]) -> "pd.DataFrame":
    """Return a table with a row per run and the columns `COLUMNS`."""
    import pandas as pd

    frame = pd.DataFrame([[get(run) for get in _GET] for run in runs], columns=list(COLUMNS))
    return frame.assign(path=frame["path"].map(str))


def read_run(path: Path) -> Run:
    """Read and check a record.

    Raises:
        OSError, StoreError: The file cannot be read, or was written by a newer version.
        InvalidFile: The record is damaged, or its run ID, spec and file name disagree.
    """
    data = read_regular(path, LARGEST_RECORD)
    with naming(path):
        try:
            run = parse_run(data, path)
        except Invalid:
            if _is_newer(data):
                raise StoreError(f"{path} was written by a newer vtab-peft; update this one") from None
            raise
        name = RECORD_NAME.fullmatch(path.name)
        if name is None or run.run_id != name["run_id"]:
            raise Invalid("the run ID does not match the spec and the file name", "key")
    return run


def _is_newer(data: bytes) -> bool:
    try:
        versions = from_json(data, Versions)
    except Invalid:
        return False
    return versions.schema > SCHEMA or versions.protocol > PROTOCOL


def parse_run(data: bytes, path: Path) -> Run:
    """Return the record in a JSON text, which is at `path` or goes there; raise `Invalid` if it is not valid."""
    record = from_json(data, Record)
    if record.schema > SCHEMA or record.protocol > PROTOCOL:
        raise Invalid("is from a newer version", "schema")
    spec, result, facts, made = record.spec.build("spec"), record.result, record.facts, record.provenance
    if spec.run_id() != record.key:
        raise Invalid("the run ID does not match the spec", "key")
    if "device" not in made:
        raise Invalid("is missing", "provenance.device")
    environment = {name: value for name, value in made.items() if name not in ("created", "argv")}
    return Run(
        path=path,
        repetition=repetition_of(path),
        run_id=record.key,
        spec=spec,
        title=facts.title or spec.method.name,  # a plug-in needs no title
        group=facts.group,
        classes=facts.classes,
        test_images=facts.test_images,
        tuning=facts.tuning,
        per_class_accuracy=_numbers(result.per_class_accuracy),
        loss_curve=_numbers(result.loss_curve),
        **{name: getattr(result, name) for name in _RESULT},
        predictions_sha256=record.predictions_sha256,
        device=_device(made),
        created=made.get("created", ""),
        argv=tuple(map(sys.intern, made.get("argv", ()))),
        environment=sys.intern(msgspec.json.encode(environment, order="sorted").decode()),
    )


_RESULT = (
    *("accuracy", "trainable_params", "head_params", "total_params", "train_seconds", "eval_seconds"),
    *("images_per_second", "peak_bytes", "adapter_bytes", "oracle_accuracy", "oracle_epoch"),
)
"""Fields of `result` that `Run` has under the same name."""


def read_failure(path: Path) -> Failure:
    """Read and check the record of a failure.

    Raises:
        OSError: The file cannot be read.
        InvalidFile: It is damaged, or belongs to another run.
    """
    with naming(path):
        return parse_failure(read_regular(path, LARGEST_RECORD), path)


def parse_failure(data: bytes, path: Path) -> Failure:
    """Return the failure in a JSON text, which is at `path` or goes there; raise `Invalid` if it is not valid."""
    record = from_json(data, FailureRecord)
    spec = record.spec.build("spec")
    if not spec.run_id() == record.key == path.stem:
        raise Invalid("the run ID does not match the spec and the file name", "key")
    # Records without error_type: the reason is "ErrorType: message".
    error_type = record.error_type or record.reason.partition(":")[0]
    return Failure(spec=spec, reason=record.reason, traceback=record.traceback, error_type=error_type)


def repetition_of(path: Path) -> int:
    """Return the repetition that a record's file name states, from 1."""
    middle = path.name.split(".")[1]
    return int(middle) if middle.isdecimal() else 1


def _numbers(values: Sequence[float | None] | None) -> array | None:
    """Store numbers compactly, with NaN for null."""
    if values is None:
        return None
    return array("d", [float("nan") if value is None else value for value in values])


def _device(provenance: Provenance) -> str:
    """Return the device and how many runs shared it, because shared devices are slower."""
    device, shared = provenance.get("device", ""), provenance.get("concurrent_runs")
    shared = _concurrent_runs(" ".join(provenance.get("argv", ()))) if shared is None else shared
    return f"{device}, shared by {shared}" if shared > 1 else device


@lru_cache(maxsize=4096)
def _normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    return " ".join(
        f"{name} {'/'.join(f'{value:g}' for value in values)}" for name, values in (("mean", mean), ("std", std))
    )


@lru_cache(maxsize=4096)
def _concurrent_runs(command: str) -> int:
    """Return how many runs shared the device, for records that store only the command."""
    if workers := re.search(r"--workers[ =](\d+)", command):
        return int(workers[1])
    share = re.search(r"--gpus-per-(?:cell|run)[ =](0?\.\d*[1-9])", command)
    return round(1 / float(share[1])) if share else 1
