"""A quick look at a few test images: `run --limit-test N`.  Nothing is stored, so nothing can be ranked."""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from tabulate import tabulate

from ...datasets.cache import CachedTask
from ...datasets.tasks import find
from ..plan import make_plan
from ..reporting.wording import pluralize
from ..storage.store import Store
from .messages import announcement, one_worker, say
from .pool_options import open_pool
from .run import (
    cached_tasks,
    check_recipe,
    check_task_folders,
    deadline_in,
    resolve_names,
    run_missing,
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
    stored |= {"--split val": options.split == "val"}
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
            backbone, methods = resolve_names(options, pool)
            found = cached_tasks(tasks, config.preprocessing(backbone))
            few = [limited(data, options.limit_test, folder / "images") for data in found]
            runs = make_plan(backbone, methods, few, config)
            say(announcement(runs, runs, backbone, config.recipe, options.engine, one_worker=one_worker(options)))
            result = sweep(runs, pool, store, deadline, options.grace)
        finally:
            pool.stop()
        print(table(store, [method.ref.spec for method in methods], config.drawn(few)))
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


def table(store: Store, methods: Sequence[str], tasks: Sequence[CachedTask]) -> str:
    """Return a table of accuracies in percent, means over seeds, a row per method."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for run in store.load_runs()[0]:
        found[run.spec.method.spec, f"{run.spec.task.suite}/{run.spec.task.name}"].append(100 * run.accuracy)
    names = [data.task.label for data in tasks]
    one_suite = len({data.task.suite for data in tasks}) == 1
    rows = [
        [method, *(f"{fmean(found[method, name]):.0f}" if found[method, name] else "" for name in names)]
        for method in methods
    ]
    header = ["method", *(data.task.name if one_suite else data.task.label for data in tasks)]
    return tabulate(rows, header, "simple", disable_numparse=True, colalign=["left", *["right"] * len(names)])
