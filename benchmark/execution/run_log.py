"""Logs of training: loss, learning rate and accuracy of each epoch, for `tail -f`, TensorBoard or Weights & Biases.

    results/logs/<run ID>.csv             --log csv
    results/logs/tensorboard/<run ID>/    --log tensorboard
    results/logs/wandb/                   --log wandb; WANDB_MODE=offline keeps it there

The worker writes them.  They are derived from the run and change nothing in it: a log that fails is given up, with a
message, and the run goes on.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from ..engine.epoch import EpochFacts

if TYPE_CHECKING:
    from ..plan import PlannedRun  # numpy: not for --help

LogKind = Literal["csv", "tensorboard", "wandb"]
LOGS: tuple[LogKind, ...] = get_args(LogKind)
PACKAGES = ("tensorboard", "wandb")
"""Logs that need the package of their name, which is an extra."""


class Log(Protocol):
    """A log of one run."""

    def write(self, number: int, epoch: EpochFacts) -> None: ...

    def close(self) -> None: ...


def check_packages(kinds: Sequence[LogKind]) -> None:
    """Raise `ValueError` if the package of a log is missing."""
    for kind in kinds:
        if kind in PACKAGES and find_spec(kind) is None:
            raise ValueError(f"--log {kind} needs the package {kind}: pip install 'vtab-peft[{kind}]'")


class RunLog:
    """All logs of one run."""

    def __init__(self, kinds: Sequence[LogKind], results: Path, run: "PlannedRun") -> None:
        self.kinds: list[LogKind] = list(kinds)
        """The logs that are still written."""
        self._folder, self._run = results / "logs", run
        self._logs: dict[LogKind, Log] = {}
        self._epochs = 0
        self._each(self._begin)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._each(self._close)

    def write(self, number: int, epoch: EpochFacts) -> None:
        """Add the epoch with this number, from 1; a second first one begins new logs."""
        if number <= self._epochs:  # the training began again in smaller batches
            self._each(self._begin)
        self._epochs = number
        self._each(lambda kind: self._logs[kind].write(number, epoch))

    def _begin(self, kind: LogKind) -> None:
        self._close(kind)
        self._logs[kind] = _KINDS[kind](self._folder, self._run)

    def _close(self, kind: LogKind) -> None:
        if kind in self._logs:
            self._logs.pop(kind).close()

    def _each(self, action: Callable[[LogKind], None]) -> None:
        """Do something with each log, and give up those that fail."""
        for kind in list(self.kinds):
            try:
                action(kind)
            except Exception as error:  # of the disk, the network or a package; the run is worth more
                self.kinds.remove(kind)
                print(f"a log is given up: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def values_of(epoch: EpochFacts) -> dict[str, float]:
    """Return the logged values by name."""
    known = {"loss": epoch.loss, "lr": epoch.lr, "images_per_second": round(epoch.images_per_second, 1)}
    return known if epoch.accuracy is None else {**known, "accuracy": epoch.accuracy}


class CsvLog:
    """A CSV file, complete after each epoch."""

    def __init__(self, folder: Path, run: "PlannedRun") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"{run.spec.run_id()}.csv").open("w", encoding="utf-8")

    def write(self, number: int, epoch: EpochFacts) -> None:
        values = values_of(epoch)
        if number == 1:
            self._file.write(",".join(["epoch", *values]) + "\n")
        self._file.write(",".join(map(str, [number, *values.values()])) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoardLog:
    """Event files of TensorBoard."""

    def __init__(self, folder: Path, run: "PlannedRun") -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard" / run.spec.run_id()), purge_step=1)  # of earlier tries
        self._writer.add_text("run", str(run))

    def write(self, number: int, epoch: EpochFacts) -> None:
        for name, value in values_of(epoch).items():
            self._writer.add_scalar(name, value, number)

    def close(self) -> None:
        self._writer.close()


class WandbLog:
    """A run of Weights & Biases; its own environment variables choose project, entity and mode."""

    def __init__(self, folder: Path, run: "PlannedRun") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        wandb: Any = import_module("wandb")
        self._run = wandb.init(dir=str(folder), name=str(run), config=run.spec.to_json())

    def write(self, number: int, epoch: EpochFacts) -> None:
        self._run.log(values_of(epoch), step=number)

    def close(self) -> None:
        self._run.finish()


_KINDS: dict[LogKind, Callable[[Path, "PlannedRun"], Log]] = {
    "csv": CsvLog,
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
}
