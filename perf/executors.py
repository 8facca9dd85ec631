"""Measure the overhead of an executor per run: short runs through one local worker and one worker on Ray.

    python perf/executors.py

The worker is warm when the clock starts.  A run's time without training and evaluation is the time to schedule it, to
set up its model and to store its result; only scheduling differs between executors.  They take turns in each round.
Prints the median over runs and the lower decile, which estimates an idle machine.  Writes perf/results/executors.json.
"""

import argparse
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measured import save
from short_runs import Work
from vtab_peft.benchmark.commands.run import cached_tasks
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution.local_pool import local_pool
from vtab_peft.benchmark.execution.messages import ResolveRequest, RunFinished, WorkerConfig
from vtab_peft.benchmark.execution.pool import WorkerPool
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.execution.ray_pool import RayBackend
from vtab_peft.benchmark.plan import PlannedRun, SweepConfig, make_plan
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import find

NAMES = ("local", "Ray, one worker")
WARM = 4
"""Runs before the clock counts."""


class Clock(Progress):
    """Records the end of each run, on `time.perf_counter`."""

    def __init__(self, runs: list[PlannedRun]) -> None:
        super().__init__(runs, io.StringIO())
        self.ends = [time.perf_counter()]

    def finished(self, run: PlannedRun, result: RunFinished) -> None:
        self.ends.append(time.perf_counter())


def pool(name: str, results: Path) -> WorkerPool:
    config = WorkerConfig(results, Numerics(1))
    cpus = float(os.cpu_count() or 1)
    return local_pool(config) if name == "local" else WorkerPool(RayBackend(None, cpus, 0.0, config))


def timed(name: str, folders: list[str], seeds: int, results: Path) -> list[tuple[float, float]]:
    """Return for each run the milliseconds since the end of the last one, and those of training and evaluation."""
    choice, store = SweepConfig(RECIPES["smoke"], range(seeds)), Store(results)
    workers = pool(name, results)
    try:
        backbone, methods = workers.resolve(ResolveRequest("toy_vit", "random", None, "fp32", ["lora(rank=2)"]))
        tasks = cached_tasks(find(folders, None, None), choice.preprocessing(backbone))
        runs = make_plan(backbone, methods, tasks, choice)
        clock = Clock(runs)
        workers.execute(runs, store, clock)
    finally:
        workers.stop()
    stored = [found for run in runs if (found := store.latest(run.spec)[0])]
    learning = [1000 * (found.train_seconds + found.eval_seconds) for found in stored]
    return list(zip((1000 * np.diff(clock.ends)).tolist(), learning, strict=True))[WARM:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VTAB_PEFT_CACHE"] = f"{folder}/cache"
        work = Work(Path(folder, "work"), options.seeds)
        folders = [str(work.folder / name) for name in ("bright", "dark")]
        for number in range(options.rounds):
            for name in NAMES:
                results = Path(folder, f"{name.split()[0]}-{number}")
                seen[name] += timed(name, folders, options.seeds, results)
    rows = []
    for name, own in seen.items():
        whole, learning = np.array(own).T
        parts = {"run": whole, "training and evaluation": learning, "everything else": whole - learning}
        milliseconds = {what: np.percentile(values, (50, 10)).round(1).tolist() for what, values in parts.items()}
        rows.append({"executor": name, "runs": len(own), "median and lower decile, ms": milliseconds})
        print(rows[-1], flush=True)
    save("executors", {"rows": rows, "load": os.getloadavg()[0]}, torch.device("cpu"))


if __name__ == "__main__":
    main()
