"""The types of stored records, `Run` and `Failure`, and the table of runs."""

import json
import marshal
import re
import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..spec import PROTOCOL, RunSpec, canonical_json
from .json_io import StoreError, from_text

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

    @classmethod
    def from_json(cls, path: Path, record: dict[str, Any]) -> "Run":
        """Build a run from the JSON values of its record.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: A field is missing or wrong; the message names it.
        """
        spec, result, facts = RunSpec.from_json(record["spec"]), record["result"], record["facts"]
        environment = dict(record["provenance"])
        created, argv = environment.pop("created", ""), environment.pop("argv", ())
        run = cls(
            path=path,
            repetition=repetition_of(path),
            run_id=record["key"],
            spec=spec,
            title=facts["title"],
            group=facts["group"],
            classes=facts["classes"],
            test_images=facts.get("test_images"),
            tuning=facts.get("tuning", {}),
            per_class_accuracy=_numbers(result.get("per_class_accuracy"), missing=float("nan")),
            loss_curve=_numbers(result.get("loss_curve")),
            **{name: result[name] for name in _RESULT},
            oracle_accuracy=result.get("oracle_accuracy"),
            oracle_epoch=result.get("oracle_epoch"),
            predictions_sha256=record["predictions_sha256"],
            device=_device(record["provenance"]),
            created=created,
            argv=tuple(map(sys.intern, argv)),
            environment=_environment(marshal.dumps(environment, 2)),
        )
        for name, get, kinds in _CHECKED:
            value = get(run)
            if type(value) not in kinds or (type(value) in _FLOAT and not abs(value) < _TOO_LARGE):
                raise ValueError(f"{name} is {value!r:.60}")
        if run.test_images is not None and not (type(run.test_images) is int and run.test_images > 0):
            raise ValueError(f"test_images is {run.test_images!r:.60}")
        if not 0 <= run.accuracy <= 1:
            raise ValueError(f"accuracy is {run.accuracy}, not in [0, 1]")
        return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The record of a run that failed."""

    spec: RunSpec
    reason: str
    traceback: str
    """Empty if the worker process died."""
    error_type: str
    """Name of the exception."""

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Failure":
        """Build a failure from the JSON values of its record.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: A field is missing or wrong.
        """
        spec, reason, traceback = RunSpec.from_json(record["spec"]), record["reason"], record["traceback"]
        if spec.run_id() != record["key"]:
            raise ValueError("the run ID does not match the spec")
        # Records without error_type: the reason is "ErrorType: message".
        error_type = record.get("error_type") or reason.partition(":")[0]
        if not all(isinstance(text, str) for text in (reason, traceback, error_type)):
            raise ValueError("reason, traceback or error_type is not a string")
        return cls(spec=spec, reason=reason, traceback=traceback, error_type=error_type)


_RESULT = (
    *("accuracy", "trainable_params", "head_params", "total_params"),
    *("train_seconds", "eval_seconds", "images_per_second", "peak_bytes", "adapter_bytes"),
)
"""Fields of `result` that every record has."""
_STR, _INT, _FLOAT, _NONE = (str,), (int,), (float, int), type(None)
COLUMNS: dict[str, tuple[str, tuple[type, ...]]] = {
    "key": ("run_id", _STR),
    "repetition": ("repetition", _INT),
    "path": ("path", (type(Path()),)),
    "split": ("spec.split", _STR),
    "seed": ("spec.seed", _INT),
    "backbone": ("spec.backbone.name", _STR),
    "backbone_sha256": ("spec.backbone.sha256", _STR),
    "suite": ("spec.task.suite", _STR),
    "task": ("spec.task.name", _STR),
    "task_version": ("spec.task.version", _INT),
    "data": ("spec.task.data", _STR),
    "provenance": ("spec.task.provenance", _STR),
    "group": ("group", _STR),
    "classes": ("classes", _INT),
    "method": ("spec.method.name", _STR),
    "spec": ("spec.method.spec", _STR),
    "asked": ("method_spec", _STR),
    "title": ("title", _STR),
    "method_version": ("spec.method.version", _INT),
    "plugin": ("spec.method.plugin", (str, _NONE)),
    "args": ("spec.method.args_json", _STR),
    "recipe": ("spec.recipe.name", _STR),
    "recipe_base": ("spec.recipe_base", _STR),
    "tuned": ("spec.recipe.tuned", (bool,)),
    "configurations": ("configurations", (int, _NONE)),
    "lr": ("spec.recipe.lr", _FLOAT),
    "normalisation": ("normalisation", _STR),
    "interpolation": ("spec.interpolation", _STR),
    "image_size": ("spec.recipe.image_size", _INT),
    "accuracy": ("accuracy", _FLOAT),
    "trainable_params": ("trainable_params", _INT),
    "head_params": ("head_params", _INT),
    "total_params": ("total_params", _INT),
    "train_seconds": ("train_seconds", _FLOAT),
    "eval_seconds": ("eval_seconds", _FLOAT),
    "images_per_second": ("images_per_second", _FLOAT),
    "peak_bytes": ("peak_bytes", _INT),
    "adapter_bytes": ("adapter_bytes", _INT),
    "device": ("device", _STR),
    "oracle_accuracy": ("oracle_accuracy", (*_FLOAT, _NONE)),
    "oracle_epoch": ("oracle_epoch", (int, _NONE)),
    "origin": ("provenance_json", _STR),
}
"""Columns of `to_frame`: attribute of `Run`, and the types that it may have.  `args` and `origin` are JSON text."""
_GET = {name: attrgetter(attribute) for name, (attribute, _) in COLUMNS.items()}
_CHECKED = [(name, _GET[name], kinds) for name, (_, kinds) in COLUMNS.items() if name not in ("path", "origin")]
_TOO_LARGE = 2**63
"""Limit of a 64-bit column; infinity and NaN do not pass the comparison either."""


def to_frame(runs: Iterable[Run]) -> "pd.DataFrame":
    """Return a table with a row per run and the columns `COLUMNS`."""
    import pandas as pd

    rows = [[get(run) for get in _GET.values()] for run in runs]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.assign(path=frame["path"].map(str))


def read_run(path: Path) -> Run:
    """Read and check a record.

    Raises:
        OSError, StoreError: The file cannot be read, or was written by a newer version.
        ValueError, KeyError, TypeError, AttributeError, ...: The record is damaged (see `BROKEN`).
    """
    record = from_text(path.read_bytes().decode())
    schema, protocol = record["schema"], record["protocol"]
    if schema > SCHEMA or protocol > PROTOCOL:
        raise StoreError(f"{path} was written by a newer vtab-peft (protocol {protocol}); update this one")
    run, name = Run.from_json(path, record), RECORD_NAME.fullmatch(path.name)
    if name is None or not run.spec.run_id() == run.run_id == name["run_id"]:
        raise ValueError("the run ID does not match the spec and the file name")
    return run


def repetition_of(path: Path) -> int:
    """Return the repetition that a record's file name states, from 1."""
    middle = path.name.split(".")[1]
    return int(middle) if middle.isdecimal() else 1


def _numbers(values: Any, missing: float | None = None) -> array | None:
    """Store numbers compactly, with `missing` for null.  Raises `TypeError` for other values."""
    if values is None:
        return None
    return array("d", cast("list[float]", [missing if value is None else value for value in values]))


@lru_cache(maxsize=4096)
def _environment(data: bytes) -> str:
    """Return marshalled JSON values as text."""
    return json.dumps(marshal.loads(data), sort_keys=True, allow_nan=False)


def _device(provenance: Mapping[str, Any]) -> str:
    """Return the device and how many runs shared it, because shared devices are slower."""
    device, shared = provenance["device"], provenance.get("concurrent_runs")
    shared = _concurrent_runs(" ".join(map(str, provenance.get("argv", ())))) if shared is None else shared
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
