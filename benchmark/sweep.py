"""The verbs `run` and `report`: from what the user typed to results on disk and tables on the screen."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from ..datasets import cache
from ..datasets.cache import CachedTask, Preprocessing
from ..datasets.task import Task
from ..datasets.tasks import find
from .executor import Tally, WorkerProcess, execute
from .numerics import Numerics
from .plan import BackboneInfo, Cell, Choice, MethodInfo, make_plan
from .progress import Progress, advance, duration
from .recipes import RECIPES
from .spec import Recipe, RunSpec
from .store import Store
from .worker import Describe


def run(options: argparse.Namespace) -> int:
    """`vtab-peft run`: fill in what is missing of the asked-for cells, then rebuild the report."""
    tasks = find(options.tasks, options.suite, options.data)
    choice = Choice(
        recipe=RECIPES[options.recipe],
        seeds=list(dict.fromkeys(options.seeds)),
        split=options.split,
        normalisation=options.normalisation,
        interpolation=options.interpolation,
    )
    worker = WorkerProcess(options.results, numerics(options), options.plugin)
    try:
        backbone, methods = worker.describe(
            Describe(
                options.backbone, options.weights, choice.recipe.image_size, choice.recipe.precision, options.methods
            )
        )
        for note in backbone.notes:
            _say(note)
        store = Store(options.results)
        there = store.has_adapter if options.keep_adapters else store.has
        if options.dry_run:
            return _dry_run(tasks, backbone, methods, choice, there)
        cells = make_plan(backbone, methods, cached_tasks(tasks, choice.preprocessing(backbone)), choice)
        missing = [
            replace(cell, keep_adapter=options.keep_adapters) for cell in cells if options.again or not there(cell.spec)
        ]
        _say(_announcement(cells, missing, backbone, choice.recipe))
        tally = sweep(missing, worker, store, options.max_minutes)
    except KeyboardInterrupt:
        _say(f"stopped; every finished cell is kept in {options.results}/ and the same command goes on from there")
        return 130
    finally:
        worker.stop()
    _say_outcome(tally, store)
    if choice.split == "test":
        write_report(options.results)
    return 1 if tally.failed else 0


def numerics(options: argparse.Namespace) -> Numerics:
    return Numerics(options.threads, options.engine, options.checkpointing)


def report(options: argparse.Namespace) -> int:
    """`vtab-peft report`."""
    return write_report(options.results)


def write_report(results: Path) -> int:
    """Rebuild every derived file and print the tables; returns the exit status."""
    from .judging.report import write

    written = write(Store(results), results)
    for complaint in written.complaints:
        _say(complaint)
    print(written.text)
    if written.boards:
        print(f"report: {results / 'README.md'}")
    return 0 if written.boards and not written.complaints else 1


def sweep(cells: Sequence[Cell], worker: WorkerProcess, store: Store, max_minutes: float | None = None) -> Tally:
    """Run cells with progress shown on standard error."""
    progress = Progress(cells)
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    try:
        return execute(cells, worker, store, progress, deadline)
    finally:
        progress.close()


def cached_tasks(tasks: Sequence[Task], preprocessing: Preprocessing) -> list[CachedTask]:
    """The tasks with their pixels ready; what is not yet in the cache is decoded now, with a bar."""
    root = cache.default_root()
    ready = []
    for task in tasks:
        found = cache.cached(task, preprocessing, root)
        if found is None:
            with tqdm(desc=f"reading {task.name}", unit=" images", disable=not sys.stderr.isatty()) as bar:
                found = cache.build(task, preprocessing, root, lambda done, of, bar=bar: advance(bar, done, of))
        ready.append(found)
    return ready


def _announcement(cells: Sequence[Cell], missing: Sequence[Cell], backbone: BackboneInfo, recipe: Recipe) -> str:
    estimate = f", about {duration(sum(cell.seconds for cell in missing))}" if missing else ""
    done = f" ({len(cells) - len(missing)} of {len(cells)} are there)" if len(cells) > len(missing) else ""
    return (
        f"{len(missing)} cells to run{done}: {backbone.ref.name}, recipe {recipe.name}, on {backbone.device}{estimate}"
    )


def _dry_run(
    tasks: Sequence[Task],
    backbone: BackboneInfo,
    methods: Sequence[MethodInfo],
    choice: Choice,
    there: Callable[[RunSpec], bool],
) -> int:
    """Print the plan; nothing is run, built or written."""
    root, preprocessing = cache.default_root(), choice.preprocessing(backbone)
    found = {task.label: cache.cached(task, preprocessing, root) for task in tasks}
    ready = [data for data in found.values() if data is not None]
    unread = [label for label, data in found.items() if data is None]
    cells = make_plan(backbone, methods, ready, choice)
    rows = []
    for method in methods:
        own = [cell for cell in cells if cell.method is method]
        todo = [cell for cell in own if not there(cell.spec)]
        lr = method.lr or choice.recipe.lr
        rows.append(
            (
                method.ref.spec,
                f"{method.trainable_params:,}",
                f"{lr:g}",
                len(own) - len(todo),
                len(todo),
                duration(sum(cell.seconds for cell in todo)),
            )
        )
    header = ("method", "trainable (no head)", "lr", "done", "to run", "estimate")
    seeds = " ".join(str(seed) for seed in choice.seeds)
    print(
        f"{backbone.ref.name}, recipe {choice.recipe.name}, seeds {seeds}, {len(tasks)} tasks, on {backbone.device}\n"
    )
    print(tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=("left", *["right"] * 5)))
    todo = [cell for cell in cells if not there(cell.spec)]
    print(f"\n{len(todo)} of {len(cells)} cells to run, about {duration(sum(cell.seconds for cell in todo))}")
    if unread:
        more = len(unread) * len(methods) * len(choice.seeds)
        print(f"and {more} cells of tasks not read yet, so not estimated: {', '.join(unread)}")
    return 0


def _say_outcome(tally: Tally, store: Store) -> None:
    if tally.left:
        _say(f"{tally.left} cells were not started for lack of time; the same command goes on from here")
    for cell, reason in tally.failed:
        _say(f"failed: {cell}: {reason} (traceback in {store.failure(cell.spec)})")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
