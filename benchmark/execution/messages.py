"""Messages between the parent of a sweep and its workers, matched by their type.

    ResolveRequest -> ProgressUpdate*, then Resolved or ConfigurationRefused
    PlannedRun     -> ProgressUpdate*, then RunFinished, RunFailed or ResultsUnwritable

A worker's supervisor answers WorkerLost instead if the process died or hung.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..engine.epoch import EpochFacts
from ..engine.numerics import Numerics
from ..plan import BackboneInfo, MethodInfo
from .run_log import LogKind


def command_line() -> list[str]:
    """Return the command as typed, without the folder of the program."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


@dataclass(frozen=True)
class WorkerConfig:
    """Settings of a worker process."""

    results: Path
    numerics: Numerics
    plugins: Sequence[Path] = ()
    argv: list[str] = field(default_factory=command_line)
    """Command that records name as their origin."""
    concurrent_runs: int = 1
    """Number of runs at a time, on all devices; those that share one are recorded, because it changes times."""
    device: str | None = None
    """Device as torch names it; None: the visible GPUs in turn, else the CPU."""
    number: int = 1
    """Number of the worker, from 1."""
    log: Sequence[LogKind] = ()
    """Logs to write for each run."""


@dataclass(frozen=True)
class ResolveRequest:
    """Question which weights and methods the command's names stand for."""

    backbone: str
    weights: str | None
    image_size: int | None
    precision: str
    methods: Sequence[str]
    """Spec strings; `all` means every registered method."""
    all_plugged: bool = False
    """Add every method that the plug-in files register."""
    variants: bool = False
    """Add to each method the variants of its tuning grid."""
    grid: Mapping[str, Sequence[Any]] | None = None
    """Argument of methods -> values, in place of each method's own grid."""


@dataclass(frozen=True)
class ProgressUpdate:
    """Progress of a download, of training (in epochs) or of evaluation (in images)."""

    phase: str
    done: int
    total: int
    epoch: EpochFacts | None = None
    """Facts of the epoch that has ended, in training."""


@dataclass(frozen=True)
class Resolved:
    """The backbone and methods that a worker found."""

    backbone: BackboneInfo
    methods: list[MethodInfo]
    worker: str = ""
    """Name of the worker, set by its supervisor."""

    def agrees_with(self, other: "Resolved") -> bool:
        """Return True if weights, method versions and plug-in files are the same."""
        ours, theirs = ([found.backbone.ref, *(method.ref for method in found.methods)] for found in (self, other))
        return ours == theirs


@dataclass(frozen=True)
class ConfigurationRefused:
    """The request names something that does not exist or does not fit together."""

    reason: str
    worker: str = ""


@dataclass(frozen=True)
class WorkerLost:
    """The worker died or hung."""

    reason: str
    worker: str = ""
    node: bool = False
    """True if its supervisor is lost too, so that it cannot be used again."""


@dataclass(frozen=True)
class RunFinished:
    """A run was trained, evaluated and stored."""

    path: Path
    accuracy: float
    seconds: float
    images_per_second: float
    agrees: bool | None
    """For a repetition: True if its predictions equal those of the stored run."""
    oom_summary: str = ""
    """Smaller batches used because memory ran out, in words."""


@dataclass(frozen=True)
class RunFailed:
    """A run raised an exception; the sweep goes on."""

    reason: str
    error_type: str
    """Class name of the exception."""
    traceback: str = ""


@dataclass(frozen=True)
class ResultsUnwritable:
    """The results folder is full or read-only."""

    reason: str


ResolveReply = Resolved | ConfigurationRefused | WorkerLost
RunReply = RunFinished | RunFailed | ResultsUnwritable | WorkerLost
