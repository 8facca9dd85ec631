"""The pool of workers that the options of a command ask for."""

import argparse

from ..engine.numerics import Numerics
from ..execution.local_pool import local_pool, visible_gpus
from ..execution.messages import WorkerConfig
from ..execution.pool import WorkerPool
from ..execution.run_log import check_packages


def open_pool(options: argparse.Namespace) -> WorkerPool:
    """Start the workers that the options ask for.

    Raises:
        ConfigurationError: Ray or its cluster is not available.
        ValueError: options contradict each other.
    """
    cluster = {"--ray-address": options.ray_address, "--gpus-per-run": options.gpus_per_cell}
    cluster["--cpus-per-run"] = options.cpus_per_cell
    if options.executor == "local":
        if given := [name for name, value in cluster.items() if value is not None]:
            raise ValueError(f"{given[0]} is an option of Ray; add --executor ray")
    elif given := [name for name, value in _of_one_machine(options).items() if value]:
        raise ValueError(f"{given[0]} is for the local executor; Ray gives each worker its GPUs, see --gpus-per-run")
    check_packages(options.log)
    config = WorkerConfig(options.results, numerics(options), options.plugin, log=options.log, device=options.device)
    if options.executor == "local":
        return local_pool(config, _number_of_workers(options))
    from ..execution.ray_pool import RayBackend

    cpus = options.cpus_per_cell or options.threads
    return WorkerPool(RayBackend(options.ray_address, cpus, options.gpus_per_cell, config))


def _of_one_machine(options: argparse.Namespace) -> dict[str, bool]:
    """Return which options of workers on one machine are given."""
    given = {"--workers": options.workers != 1, "--workers-per-gpu": options.workers_per_gpu is not None}
    return given | {"--device": options.device is not None}


def _number_of_workers(options: argparse.Namespace) -> int:
    """Return the number of local workers.

    Raises:
        ValueError: options contradict each other, or there is no GPU for --workers-per-gpu.
    """
    if options.workers_per_gpu is None:
        return options.workers
    if options.workers != 1 or options.device is not None:
        raise ValueError(
            "--workers-per-gpu sets the number of workers and uses all GPUs: leave out --workers, --device"
        )
    if not (gpus := visible_gpus()):
        raise ValueError("--workers-per-gpu: there is no visible NVIDIA GPU here; use --workers N")
    return gpus * options.workers_per_gpu


def numerics(options: argparse.Namespace) -> Numerics:
    """Return how runs are computed, as the options ask for."""
    return Numerics(options.threads, options.engine, options.checkpointing, options.micro_batch)
