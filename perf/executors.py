"""What an executor costs a cell: the same short cells through the local one, a crew of one, and one worker on Ray.

    python perf/executors.py

The worker is warm when the clock starts.  What is left of a cell's time without training and evaluation is what it
costs to hand it out, to set up its model and to store its result; where executors differ in that, it is their doing.
They run in turn, round after round.  Printed are the median over cells and the lower decile, which is what a machine
without other work would show.  Writes perf/results/executors.json.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measured import keep
from short_cells import Work
from vtab_peft.benchmark.commands.run import cached_tasks
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution.pool import WorkerPool
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.execution.ray_pool import RayBackend, Share
from vtab_peft.benchmark.execution.supervised_worker import LocalBackend
from vtab_peft.benchmark.execution.worker import ResolveRequest, RunSummary
from vtab_peft.benchmark.execution.worker_process import Executor, WorkerProcess
from vtab_peft.benchmark.plan import PlannedRun, SweepConfig, make_plan
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import find

NAMES = ("local", "crew of one", "Ray, one worker")
WARM = 4
"""Cells before the clock counts."""


class Clock(Progress):
    """When each cell ended, on `time.perf_counter`."""

    def __init__(self, cells: list[PlannedRun]) -> None:
        super().__init__(cells, io.StringIO())
        self.ends = [time.perf_counter()]

    def finished(self, cell: PlannedRun, summary: RunSummary) -> None:
        self.ends.append(time.perf_counter())


def executor(name: str, results: Path) -> Executor:
    if name == "local":
        return WorkerProcess(results, Numerics(1))
    station = results, Numerics(1), [], sys.argv
    whole = Share(float(os.cpu_count() or 1), 0.0)
    return WorkerPool(LocalBackend(1, station) if name == "crew of one" else RayBackend(None, whole, station))


def timed(name: str, folders: list[str], seeds: int, results: Path) -> list[tuple[float, float]]:
    """Of each cell: milliseconds from the end of the one before to its own, and of these training and evaluation."""
    choice, store = SweepConfig(RECIPES["smoke"], range(seeds)), Store(results)
    worker = executor(name, results)
    try:
        backbone, methods = worker.describe(ResolveRequest("toy_vit", "random", None, "fp32", ["lora(rank=2)"]))
        tasks = cached_tasks(find(folders, None, None), choice.preprocessing(backbone))
        cells = make_plan(backbone, methods, tasks, choice)
        clock = Clock(cells)
        worker.execute(cells, store, clock)
    finally:
        worker.stop()
    results_of = [record["result"] for cell in cells if (record := store.get(cell.spec))]
    learning = [1000 * (result["train_seconds"] + result["eval_seconds"]) for result in results_of]
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
        parts = {"cell": whole, "training and evaluation": learning, "everything else": whole - learning}
        milliseconds = {what: np.percentile(values, (50, 10)).round(1).tolist() for what, values in parts.items()}
        rows.append({"executor": name, "cells": len(own), "median and lower decile, ms": milliseconds})
        print(rows[-1], flush=True)
    keep("executors", {"rows": rows, "load": os.getloadavg()[0]}, torch.device("cpu"))


if __name__ == "__main__":
    main()
