"""Measure `report` for a full benchmark: 20 methods x 24 tasks (VTAB-1k and FGVC) x 5 seeds, 2,400 runs.

    python perf/report_speed.py

The records are synthetic, in a temporary folder.  Writes perf/results/report_speed.json: processor and wall-clock
seconds of the whole report and of its parts, the load of the machine, and the size of the page.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import save
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.reporting import (
    markup,
    report,
    significance_text,
    tables,
)
from vtab_peft.benchmark.reporting.figures import figures
from vtab_peft.benchmark.reporting.leaderboard_id import by_leaderboard
from vtab_peft.benchmark.reporting.leaderboards import leaderboard
from vtab_peft.benchmark.reporting.published import load
from vtab_peft.benchmark.reporting.published_vs_measured import compare_with_published
from vtab_peft.benchmark.reporting.significance import significance
from vtab_peft.benchmark.spec import BackboneRef, MethodRef, RunSpec, TaskRef
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.task import Task
from vtab_peft.datasets.tasks import suite_tasks

BACKBONE = BackboneRef(name="vit_base_patch16_224.augreg_in21k", sha256="5e" * 32)
EPOCHS = 100
TARGET_SECONDS = 10.0


def fill(store: Store, tasks: Iterable[Task], titles: Sequence[str], seeds: int) -> int:
    """Store a synthetic record of every run.  Returns their number."""
    rng = random.Random(0)
    levels = {title: 0.5 + 0.3 * rng.random() for title in titles}
    stored = 0
    for task in tasks:
        for place, title in enumerate(titles):
            for seed in range(seeds):
                accuracy = round(min(1.0, levels[title] + 0.1 * rng.random()), 4)
                record = _record(task, title, place, accuracy)
                store.save(_spec(task, f"m{place}", seed), record, np.zeros(1, dtype=int))
                stored += 1
    return stored


def _spec(task: Task, method: str, seed: int) -> RunSpec:
    return RunSpec(
        backbone=BACKBONE,
        task=TaskRef(suite=task.suite, name=task.name, version=1, data="d0" * 32, provenance="lossless"),
        method=MethodRef(name=method, args={}, version=1, plugin=None, spec=method, asked=None),
        recipe=replace(RECIPES["uniform"], image_size=224),
        recipe_base="uniform:0123abcd",
        split="test",
        seed=seed,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
    )


def _record(task: Task, title: str, place: int, accuracy: float) -> dict[str, Any]:
    result = {
        **{"accuracy": accuracy, "trainable_params": 1000 * place**2, "head_params": 768 * task.classes},
        **{"total_params": 86_000_000, "train_seconds": 60.0 + 7 * place, "eval_seconds": 4.0},
        **{"images_per_second": 500.0, "peak_bytes": 7 * 10**8, "adapter_bytes": 4000 * place**2},
        "loss_curve": [3.0 * 0.96**epoch + 0.01 * place for epoch in range(EPOCHS)],
        "per_class_accuracy": [accuracy] * task.classes,
    }
    return {
        "facts": {"group": task.group, "classes": task.classes, "title": title},
        "result": result,
        "provenance": {"device": "none: synthetic"},
    }


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Call `work` and return its result with the elapsed time."""
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, {
        "seconds": round(time.perf_counter() - clock, 3),
        "processor_seconds": round(time.process_time() - processor, 3),
    }


def parts(store: Store) -> dict[str, dict[str, float]]:
    """Measure the steps of the report, one after the other."""
    (runs, _), reading = timed(store.load_runs)
    found, ranking = timed(lambda: [(leaderboard(*own), own[1]) for own in by_leaderboard(runs)])
    evaluated, evaluating = timed(lambda: [(*own, significance(*own)) for own in found])
    _, drawing = timed(lambda: [figures(*own) for own in evaluated])
    _, writing = timed(
        lambda: [
            (tables.to_csv(e), markup.to_markdown(e), markup.to_latex(e), significance_text.to_page(e, s))
            for e, _, s in evaluated
        ]
    )
    _, comparing = timed(lambda: [compare_with_published(entry, load()) for entry, _ in found])
    return {
        **{"read the records": reading, "leaderboards": ranking, "significance": evaluating, "figures": drawing},
        **{"tables": writing, "published numbers": comparing},
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--methods", type=int, default=20)
    options.add_argument("--seeds", type=int, default=5)
    given = options.parse_args()
    tasks = [task for suite in ("vtab1k", "fgvc") for task in suite_tasks(suite).values()]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results")
        records = fill(store, tasks, [f"Method {place}" for place in range(given.methods)], given.seeds)
        _, whole = timed(lambda: report.write(store, Path(folder) / "out"))
        found = {
            **{"methods": given.methods, "tasks": len(tasks), "seeds": given.seeds, "records": records},
            **{"target_seconds": TARGET_SECONDS, "cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)},
            **{"report": whole, "parts": parts(store)},
            "page_bytes": (Path(folder) / "out" / "index.html").stat().st_size,
        }
    print(json.dumps(found, indent=1))
    save("report_speed", found, torch.device("cpu"))


if __name__ == "__main__":
    main()
