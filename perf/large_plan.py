"""What a plan of 50,000 cells costs whoever looks at it: `run --dry-run`, `status`, `verify` and `report`.

    python perf/large_plan.py                 every fitting method on the six toy tasks, as many seeds as that takes
    python perf/large_plan.py --cells 5000

Nine cells in ten are stored: made-up records of the size of real ones, accuracies drawn around a mean of method and
task.  Each verb runs in a process of its own; its seconds, the processor's seconds and its peak memory are those of the
command itself, without the worker that tells it what the methods are.  Writes perf/results/large_plan.json.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import keep
from vtab_peft.benchmark.commands.run import cached_tasks
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.engine.timing import provenance
from vtab_peft.benchmark.execution.local_pool import local_pool
from vtab_peft.benchmark.execution.messages import ResolveRequest, WorkerConfig
from vtab_peft.benchmark.plan import PlannedRun, SweepConfig, make_plan
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import PROTOCOL
from vtab_peft.benchmark.storage.json_io import to_text
from vtab_peft.benchmark.storage.store import SCHEMA, Store
from vtab_peft.datasets.tasks import find

CODE = """
import os, re, sys
from vtab_peft.benchmark.cli import main
status = main()
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(f"\\n{peak} {os.times().user + os.times().system}", file=sys.stderr)
sys.exit(status)
"""
VERBS = {"run --dry-run": ("run", "--dry-run"), "status": ("status",), "status of all": (), "verify": (), "report": ()}
OF_A_PLAN = ("run --dry-run", "status")


def plan(cells: int) -> tuple[list[PlannedRun], int]:
    """At least so many cells, and for how many seeds."""
    recipe = RECIPES["toy"]
    with tempfile.TemporaryDirectory() as folder:
        worker = local_pool(WorkerConfig(Path(folder), Numerics(1)))
        try:
            backbone, methods = worker.resolve(ResolveRequest("toy_vit", None, None, recipe.precision, ["all"]))
        finally:
            worker.stop()
    tasks = find(["all"], "toy", None)
    seeds = math.ceil(cells / (len(methods) * len(tasks)))
    choice = SweepConfig(recipe, range(seeds))
    return make_plan(backbone, methods, cached_tasks(tasks, choice.preprocessing(backbone)), choice), seeds


def fill(store: Store, cells: list[PlannedRun], argv: list[str]) -> int:
    """Store made-up results of nine cells in ten; how many."""
    rng, means, stored = np.random.default_rng(0), {}, 0
    origin = provenance(torch.device("cpu"), argv)
    for cell in cells:
        if rng.random() < 0.1:
            continue
        stored += 1
        mean = means.setdefault((cell.spec.task.name, cell.spec.method.name), rng.uniform(0.3, 0.8))
        record = made_up(cell, round(float(np.clip(rng.normal(mean, 0.02), 0, 1)) * 500) / 500, origin)
        path = store.path(cell.spec)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_text(record))
    return stored


def made_up(cell: PlannedRun, accuracy: float, origin: dict[str, Any]) -> dict[str, Any]:
    spec, classes = cell.spec, cell.data.classes
    result = {
        "accuracy": accuracy,
        "per_class_accuracy": [accuracy] * classes,
        "loss": 1.0,
        "loss_curve": [2.0 - 0.0123456789 * epoch for epoch in range(spec.recipe.epochs)],
        "trainable_params": cell.method.trainable_params,
        "head_params": 129 * classes,
        "total_params": 10_000_000 + cell.method.trainable_params,
        **dict.fromkeys(("train_seconds", "eval_seconds", "images_per_second"), 12.5),
        **dict.fromkeys(("peak_bytes", "adapter_bytes"), 400_000_000),
    }
    return {
        "schema": SCHEMA,
        "protocol": PROTOCOL,
        "key": spec.run_id(),
        "spec": spec.to_json(),
        "predictions_sha256": "0" * 64,
        "result": result,
        "facts": {"group": cell.data.task.group, "classes": classes, "title": cell.method.title},
        "provenance": origin,
    }


def measured(name: str, results: Path, seeds: int) -> dict[str, Any]:
    """One verb on the folder, as a user gives it."""
    arguments = [*(VERBS[name] or (name.split()[0],)), "--results", str(results)]
    if name in OF_A_PLAN:
        arguments += [
            "--suite",
            "toy",
            "--backbone",
            "toy_vit",
            "--recipe",
            "toy",
            "--methods",
            "all",
            "--threads",
            "1",
        ]
        arguments += ["--seeds", *map(str, range(seeds))]
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if ended.returncode:
        sys.exit(f"{name} ended with {ended.returncode}:\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}")
    peak, processor = ended.stderr.splitlines()[-1].split()
    return {
        "verb": name,
        "seconds": round(seconds, 1),
        "processor_seconds": round(float(processor), 1),
        "peak_mb": round(int(peak) / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=50_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results")
        cells, seeds = plan(options.cells)
        began = time.monotonic()
        stored = fill(Store(results), cells, sys.argv)
        print(f"{len(cells)} cells, {seeds} seeds, {stored} stored in {time.monotonic() - began:.0f} s", flush=True)
        rows = []
        for name in VERBS:
            rows.append(measured(name, results, seeds))
            print(rows[-1], flush=True)
    found = {"cells": len(cells), "stored": stored, "rows": rows, "load": os.getloadavg()[0]}
    keep("large_plan", found, torch.device("cpu"))


if __name__ == "__main__":
    main()
