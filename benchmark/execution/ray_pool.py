"""Workers on Ray: all GPUs of this machine, or those of a cluster.  Ray places them; which cell goes where is `crew`'s.

Results are written by the workers into the shared results folder, so neither a dead driver nor a dead node loses any.
"""

import logging
import os
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..plan import PlannedRun
from .supervised_worker import Answer, SupervisedWorker, WorkerConfig, WorkerHandle
from .worker import ResolveRequest
from .worker_process import ConfigurationError

OBJECT_STORE_BYTES = 100_000_000
"""Shared memory of a Ray that is started here; cells and answers are a few kilobytes, images never pass through it."""

START_TRIES = 3
"""Ray gives up when its helpers are not up in 15 seconds, which on a busy machine they are not always."""

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Ray reports to nobody, lets workers run like any other program, and hides GPUs from those that ask for none."""


@dataclass(frozen=True)
class Share:
    """What one worker takes of a node."""

    cpus: float
    gpus: float | None = None
    """None: one where any node has GPUs, otherwise none."""


class RayWorker:
    """A station that is a Ray actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def describe(self, request: ResolveRequest) -> "Future[Answer]":
        return self._actor.describe.remote(request).future()

    def run(self, cell: PlannedRun) -> "Future[Answer]":
        return self._actor.run.remote(cell).future()

    def stop(self) -> None:
        self._ray.kill(self._actor)


class RaySupervisedWorker(SupervisedWorker):
    """A station in a Ray worker, which must not show its own main file to the process that it spawns."""

    def __init__(self, *arguments: Any) -> None:
        import sys

        vars(sys.modules["__main__"]).pop("__file__", None)
        super().__init__(*arguments)


class RayBackend:
    """Places for workers on the nodes of a Ray cluster.

    address: of a running cluster, as `ray.init` takes it; None: one of this machine alone, which ends with us.

    Raises:
        ConfigurationError: Ray is missing, no cluster answers at the address, or no node has room for a worker.
    """

    def __init__(self, address: str | None, share: Share, station: WorkerConfig) -> None:
        self._ray = _connect(address)
        results, numerics, plugins, argv = station
        self._station = results.resolve(), numerics, [path.expanduser().resolve() for path in plugins], argv
        nodes = self._nodes()
        self._cpus = share.cpus
        self._gpus = float(any(node.get("GPU") for node in nodes)) if share.gpus is None else share.gpus
        if not self.room():
            self.close()
            there = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ConfigurationError(
                f"no node of the cluster has {self._cpus:g} CPUs and {self._gpus:g} GPUs for a worker (there are "
                f"{there}): say --cpus-per-cell or --gpus-per-cell"
            )

    def room(self) -> int:
        return sum(
            min(int(node.get(kind, 0) / of + 1e-9) for kind, of in (("CPU", self._cpus), ("GPU", self._gpus)) if of)
            for node in self._nodes()
        )

    def hire(self, number: int) -> WorkerHandle:
        actor = self._ray.remote(RaySupervisedWorker).options(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0)
        return RayWorker(self._ray, actor.remote(number, *self._station))

    def close(self) -> None:
        self._ray.shutdown()

    def _nodes(self) -> list[dict[str, float]]:
        """The resources of each node that lives."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]


def _connect(address: str | None) -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise ConfigurationError("--executor ray needs Ray: pip install 'vtab-peft[ray]'") from None
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        try:
            ray.init(address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigurationError(f"no Ray cluster can be used at {address}: {_first_line(error)}") from None
        return ray
    for left in reversed(range(START_TRIES)):
        try:
            ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
            break
        except Exception as error:  # Ray raises this very class
            if not left:
                raise ConfigurationError(f"Ray cannot be started on this machine: {_first_line(error)}") from None
    return ray


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
