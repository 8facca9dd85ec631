"""A quick look at a few test images: `run --limit-test N`.  Nothing is stored, so nothing can be ranked."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...datasets.cache import CachedTask
from ...datasets.tasks import find
from ..plan import make_plan, shard
from ..reporting.wording import pluralize
from ..storage.store import Store
from .accuracy_table import accuracy_table
from .messages import announcement, one_worker, say
from .pool_options import open_pool
from .run import (
    cached_tasks,
    check_recipe,
    check_task_folders,
    deadline_in,
    resolve_names,
    run_missing,
    stored_runs,
    sweep,
    sweep_config,
)


def run(options: argparse.Namespace) -> int:
    """Run `vtab-peft run`: a quick look if `--limit-test` is given, else the missing runs."""
    return quick_look(options) if options.limit_test else run_missing(options)


def quick_look(options: argparse.Namespace) -> int:
    """Train the runs in a temporary results folder, evaluate N test images per task and print the accuracies.

    Raises:
        ValueError: an option asks for something that is stored.
    """
    stored = {"--oracle": options.oracle, "--save-adapters": options.keep_adapters, "--repeat": options.again}
    stored |= {"--keep-logits": options.keep_logits, "--dry-run": options.dry_run}
    stored |= {"--split val": options.split == "val", "--log": options.log}
    if given := [name for name, value in stored.items() if value]:
        raise ValueError(f"--limit-test stores nothing and looks at test images, so {given[0]} has no use with it")
    deadline = deadline_in(options.max_minutes)
    tasks, config = find(options.tasks, options.suite, options.data), sweep_config(options)
    check_recipe(config.recipe, tasks)
    check_task_folders(tasks)
    with tempfile.TemporaryDirectory(prefix="vtab-peft-look-") as name:
        folder = Path(name)
        options.results, store = folder, Store(folder)
        pool = open_pool(options)
        try:
            backbone, methods = resolve_names(options, pool, config.recipe)
            found = cached_tasks(tasks, config.preprocessing(backbone))
            few = [limited(data, options.limit_test, folder / "images") for data in found]
            runs = shard(make_plan(backbone, methods, few, config), options.shard, backbone)
            say(announcement(runs, runs, backbone, config.recipe, options.engine, one_worker=one_worker(options)))
            result = sweep(runs, pool, store, deadline, options.grace)
        finally:
            pool.stop()
        print(accuracy_table(stored_runs(store, runs), 0))
        for run, reason in result.failed:
            say(f"failed: {run}: {reason}")
    counts = sorted({data.counts["test"] for data in few})
    images = pluralize(counts[-1], "test image") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} test images"
    print(f"\nA look at {images} per task: no result, not stored, not ranked.  Leave out --limit-test for a result.")
    return 1 if result.failed or result.left else 0


def limited(data: CachedTask, number: int, folder: Path) -> CachedTask:
    """Return the task with `number` test images at equal distances; they are written to `folder`."""
    index = np.unique(np.linspace(0, data.counts["test"] - 1, number).round().astype(int))
    folder.mkdir(exist_ok=True)
    images, labels = (folder / f"{data.task.suite}-{data.task.name}-{kind}.npy" for kind in ("images", "labels"))
    np.save(images, data.images("test")[index])
    np.save(labels, data.labels("test")[index])
    counts, files = {**data.counts, "test": len(index)}, {**data.files, "test": (images, labels)}
    return replace(data, counts=counts, files=files)
