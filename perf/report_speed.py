"""How long `report` takes for a full benchmark: 20 methods x 24 tasks (VTAB-1k and FGVC) x 5 seeds, 2,400 records.

The records are made up, in a folder that is deleted afterwards; nothing is trained.

    python perf/report_speed.py

Writes perf/results/report_speed.json: seconds of the processor and of the clock for the whole report and for its parts,
with the number of processes that wanted a core meanwhile (a load above the number of cores stretches the clock), and
the size of the page.
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
from measured import keep
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.reporting import (
    boards,
    markup,
    report,
    significance_text,
    tables,
)
from vtab_peft.benchmark.reporting import leaderboards as leaderboard
from vtab_peft.benchmark.reporting.figures import figures
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
    """Store a made-up record of every cell; how many there are."""
    rng = random.Random(0)
    levels = {title: 0.5 + 0.3 * rng.random() for title in titles}
    stored = 0
    for task in tasks:
        for place, title in enumerate(titles):
            for seed in range(seeds):
                accuracy = round(min(1.0, levels[title] + 0.1 * rng.random()), 4)
                store.put(_spec(task, f"m{place}", seed), _record(task, title, place, accuracy), np.zeros(1, dtype=int))
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
        "provenance": {"device": "none: made up"},
    }


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What it returned, and how long it took."""
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, {
        "seconds": round(time.perf_counter() - clock, 3),
        "processor_seconds": round(time.process_time() - processor, 3),
    }


def parts(store: Store) -> dict[str, dict[str, float]]:
    """The steps of the report, one after the other."""
    frame, reading = timed(lambda: store.frame([]))
    found, ranking = timed(lambda: [(leaderboard.leaderboard(*own), own[1]) for own in boards.boards(frame)])
    judged, judging = timed(lambda: [(*own, significance(*own)) for own in found])
    _, drawing = timed(lambda: [figures(*own) for own in judged])
    _, writing = timed(
        lambda: [
            (tables.to_csv(e), markup.to_markdown(e), markup.to_latex(e), significance_text.to_page(e, s))
            for e, _, s in judged
        ]
    )
    _, comparing = timed(lambda: [compare_with_published(entry, load()) for entry, _ in found])
    return {
        **{"read the records": reading, "leaderboards": ranking, "significance": judging, "figures": drawing},
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
    keep("report_speed", found, torch.device("cpu"))


if __name__ == "__main__":
    main()
