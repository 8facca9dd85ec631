"""Measure `run --dry-run`, `status`, `verify` and `report` on a plan of 50,000 runs.

    python perf/large_plan.py                 all methods on the six toy tasks, with as many seeds as needed
    python perf/large_plan.py --runs 5000

Nine of ten runs are stored: synthetic records of realistic size, with accuracies around a mean per method and task.
Each command runs in its own process.  Processor seconds and peak memory are those of the command without its worker,
which resolves the methods.  Writes perf/results/large_plan.json and keeps `before`, an earlier measurement.
"""

import argparse
import json
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
from measured import RESULTS, save
from vtab_peft.benchmark.commands.run import cached_tasks
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.engine.timing import provenance
from vtab_peft.benchmark.execution.local_pool import local_pool
from vtab_peft.benchmark.execution.messages import ResolveRequest, WorkerConfig
from vtab_peft.benchmark.plan import PlannedRun, SweepConfig, make_plan
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import PROTOCOL
from vtab_peft.benchmark.storage.json_io import to_text
from vtab_peft.benchmark.storage.schema import SCHEMA
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import find

CODE = """
import os, re, sys
from vtab_peft.benchmark.cli import main
status = main()
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(f"\\n{peak} {os.times().user + os.times().system}", file=sys.stderr)
sys.exit(status)
"""
COMMANDS = {
    "run --dry-run": ("run", "--dry-run"),
    "status": ("status",),
    "status of all": (),
    "verify": (),
    "report": (),
}
OF_A_PLAN = ("run --dry-run", "status")


def plan(minimum: int) -> tuple[list[PlannedRun], int]:
    """Return at least `minimum` runs and the number of seeds."""
    recipe = RECIPES["toy"]
    with tempfile.TemporaryDirectory() as folder:
        worker = local_pool(WorkerConfig(Path(folder), Numerics(1)))
        try:
            backbone, methods = worker.resolve(ResolveRequest("toy_vit", None, None, recipe.precision, ["all"]))
        finally:
            worker.stop()
    tasks = find(["all"], "toy", None)
    seeds = math.ceil(minimum / (len(methods) * len(tasks)))
    config = SweepConfig(recipe, range(seeds))
    return make_plan(backbone, methods, cached_tasks(tasks, config.preprocessing(backbone)), config), seeds


def fill(store: Store, runs: list[PlannedRun], argv: list[str]) -> int:
    """Store synthetic results of nine runs in ten.  Returns their number."""
    rng, means, stored = np.random.default_rng(0), {}, 0
    origin = provenance(torch.device("cpu"), argv)
    for run in runs:
        if rng.random() < 0.1:
            continue
        stored += 1
        mean = means.setdefault((run.spec.task.name, run.spec.method.name), rng.uniform(0.3, 0.8))
        record = synthetic(run, round(float(np.clip(rng.normal(mean, 0.02), 0, 1)) * 500) / 500, origin)
        path = store.path(run.spec)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_text(record))
    return stored


def synthetic(run: PlannedRun, accuracy: float, origin: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a run as training would have made it."""
    spec, classes = run.spec, run.data.classes
    result = {
        "accuracy": accuracy,
        "per_class_accuracy": [accuracy] * classes,
        "loss": 1.0,
        "loss_curve": [2.0 - 0.0123456789 * epoch for epoch in range(spec.recipe.epochs)],
        "trainable_params": run.method.trainable_params,
        "head_params": 129 * classes,
        "total_params": 10_000_000 + run.method.trainable_params,
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
        "facts": {"group": run.data.task.group, "classes": classes, "title": run.method.title},
        "provenance": origin,
    }


def measured(name: str, results: Path, seeds: int) -> dict[str, Any]:
    """Run one command on the folder in its own process."""
    arguments = [*(COMMANDS[name] or (name.split()[0],)), "--results", str(results)]
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
        "command": name,
        "seconds": round(seconds, 1),
        "processor_seconds": round(float(processor), 1),
        "peak_mb": round(int(peak) / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--before", type=Path, help="JSON of an earlier measurement; default: the one kept before")
    options = parser.parse_args()
    earlier = json.loads((options.before or RESULTS / "large_plan.json").read_text())
    before = {name: earlier[name] for name in ("rows", "git_sha", "device_name", "load") if name in earlier}
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results")
        runs, seeds = plan(options.runs)
        began = time.monotonic()
        stored = fill(Store(results), runs, sys.argv)
        print(f"{len(runs)} runs, {seeds} seeds, {stored} stored in {time.monotonic() - began:.0f} s", flush=True)
        rows = []
        for name in COMMANDS:
            rows.append(measured(name, results, seeds))
            print(rows[-1], flush=True)
    found = {"runs": len(runs), "stored": stored, "rows": rows, "load": os.getloadavg()[0]}
    save("large_plan", found | {"before": earlier.get("before", before)}, torch.device("cpu"))


if __name__ == "__main__":
    main()
