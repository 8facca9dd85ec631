"""Workers on Ray: one per GPU of this machine or of a cluster.

Workers write results into the shared results folder themselves, so a dead driver or node loses no stored result.
"""

import logging
import os
import secrets
import sys
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from ...datasets.reading import expanded
from ..plan import PlannedRun
from .errors import ConfigurationError
from .local_pool import SupervisedWorker
from .messages import ProgressUpdate, ResolveReply, ResolveRequest, RunReply, WorkerConfig
from .scheduler import ModelKey

OBJECT_STORE_BYTES = 100_000_000
"""Shared memory of a Ray started here; messages take a few kilobytes, and images never pass through it."""

START_TRIES = 3
"""Ray gives up if its processes are not up in 15 seconds, which happens on a busy machine."""

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Send no usage reports, keep the normal priority, and hide GPUs from workers that ask for none."""


LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""For a Ray started here: every port listens on the loopback address only, as is Ray's default on Windows and macOS."""


class RayWorker:
    """Handle of a supervised worker that runs as a Ray actor."""

    name = ""
    model: ModelKey | None = None
    progress: ProgressUpdate | None = None  # updates stay on the node

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def resolve(self, request: ResolveRequest) -> "Future[ResolveReply]":
        return self._actor.resolve.remote(request).future()

    def run(self, run: PlannedRun) -> "Future[RunReply]":
        return self._actor.run.remote(run).future()

    def stop(self) -> None:
        self._ray.kill(self._actor)


class RaySupervisedWorker(SupervisedWorker):
    """Supervised worker in a Ray process, whose main file the spawned process must not import."""

    def __init__(self, number: int, config: WorkerConfig) -> None:
        vars(sys.modules["__main__"]).pop("__file__", None)
        super().__init__(number, config)


class RayBackend:
    """Backend with as many workers as the nodes of a Ray cluster have room for.

    Args:
        address: of a running cluster, as `ray.init` takes it; None starts one on this machine for this command.
        cpus: CPUs per worker.
        gpus: GPUs per worker; None means one if any node has GPUs, otherwise none.

    Raises:
        ConfigurationError: Ray is missing, no cluster answers at the address, or no node has room for a worker.
    """

    def __init__(self, address: str | None, cpus: float, gpus: float | None, config: WorkerConfig) -> None:
        self._ray = _connect(address)
        nodes = self._nodes()
        gpus = float(any(node.get("GPU") for node in nodes)) if gpus is None else gpus
        self._share = {"CPU": cpus, "GPU": gpus}
        self._config = replace(
            config,
            results=config.results.resolve(),
            plugins=[expanded(path).resolve() for path in config.plugins],
            concurrent_runs=_fits(1, gpus) if 0 < gpus < 1 else 1,
        )
        if not self.capacity():
            self.close()
            found = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ConfigurationError(
                f"no node of the cluster has {cpus:g} CPUs and {gpus:g} GPUs for a worker (nodes: {found}); "
                "give smaller --cpus-per-run or --gpus-per-run"
            )

    def capacity(self) -> int:
        return sum(
            min(_fits(node.get(resource, 0), amount) for resource, amount in self._share.items() if amount)
            for node in self._nodes()
        )

    def spawn(self, number: int) -> RayWorker:
        actor = self._ray.remote(RaySupervisedWorker).options(
            num_cpus=self._share["CPU"], num_gpus=self._share["GPU"], max_restarts=0
        )
        return RayWorker(self._ray, actor.remote(number, self._config))

    def close(self) -> None:
        self._ray.shutdown()

    def _nodes(self) -> list[dict[str, float]]:
        """Return the resources of each live node."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]


def _fits(available: float, amount: float) -> int:
    return int(available / amount + 1e-9)


def _connect(address: str | None) -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not address:  # read when Ray is imported, and by its processes
        os.environ |= LOOPBACK | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
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
    for tries_left in reversed(range(START_TRIES)):
        try:
            ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
            break
        except Exception as error:  # Ray raises the base class
            if not tries_left:
                raise ConfigurationError(f"Ray cannot be started on this machine: {_first_line(error)}") from None
    return ray


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
