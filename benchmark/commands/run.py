"""The verbs `run` and `report`: from what the user typed to results on disk and tables on the screen."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from ...datasets import cache
from ...datasets.archive import HELP
from ...datasets.cache import CachedTask, Preprocessing
from ...datasets.task import DataError, Task
from ...datasets.tasks import find
from ..engine.numerics import Numerics
from ..execution.progress import Progress, advance
from ..execution.scheduler import SweepResult
from ..execution.signals import GRACE_SECONDS, Terminated, graceful_shutdown
from ..execution.worker import ResolveRequest
from ..execution.worker_process import Executor, WorkerProcess, command
from ..plan import BackboneInfo, MethodInfo, PlannedRun, SweepConfig, make_plan, resolve, shard
from ..recipes import RECIPES
from ..reporting.wording import pluralize
from ..storage.store import Store
from .messages import UNREAD, announcement, estimate_of, one_worker, say, say_all, say_outcome

SHOWN = 3
"""Missing folders that are named (ours)."""


def run(options: argparse.Namespace) -> int:
    """`vtab-peft run`: fill in what is missing of the asked-for cells, then rebuild the report."""
    deadline = deadline_in(options.max_minutes)  # a job's limit counts what comes before the first cell too
    if options.oracle and options.split != "test":
        raise ValueError("--oracle is the best epoch on the test images: it needs --split test")
    tasks, choice, executor = find(options.tasks, options.suite, options.data), choice_of(options), None
    for task in tasks:
        choice.recipe.for_task(task.name)  # a table without the task is refused before anything is read
    if not options.dry_run:
        check_task_folders(tasks)
    store = Store(options.results)
    try:
        executor = executor_for(options)
        backbone, methods = describe(options, choice, executor)
        if options.dry_run:
            return dry_run(tasks, backbone, methods, choice, store, options.shard, one_worker(options))
        ready = cached_tasks(tasks, choice.preprocessing(backbone))
        cells = shard(make_plan(backbone, methods, ready, choice), options.shard, backbone)
        missing = cells if options.again else missing_runs(store, cells)
        todo = [cell for cell in missing if store.failure(cell.spec).exists()] if options.only_failed else missing
        not_tried, alone = len(missing) - len(todo), one_worker(options)
        say(announcement(cells, todo, backbone, choice.recipe, options.engine, not_tried, alone))
        tally = sweep(todo, executor, store, deadline, options.grace)
    except (KeyboardInterrupt, Terminated):
        say(f"every finished cell is kept in {options.results}/ and the same command goes on from there")
        raise
    finally:
        if executor is not None:
            executor.stop()
    say_outcome(tally, store)
    if choice.split == "test":
        write_report(options.results, cells=cells)
    return 1 if tally.failed else 0


def check_task_folders(tasks: Sequence[Task]) -> None:
    """Raises `DataError`: there are no such folders; said before a worker is started and the hub asked for weights."""
    missing = [str(task.folder) for task in tasks if task.folder is not None and not task.folder.is_dir()]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise DataError(f"there is no folder {', '.join(missing[:SHOWN])}{more}; {HELP}")


def choice_of(options: argparse.Namespace) -> SweepConfig:
    return SweepConfig(
        recipe=RECIPES[options.recipe],
        seeds=list(dict.fromkeys(options.seeds)),
        split=options.split,
        normalisation=options.normalisation,
        interpolation=options.interpolation,
        oracle=options.oracle,
        keep_adapters=options.keep_adapters,
    )


def describe(
    options: argparse.Namespace, choice: SweepConfig, executor: Executor
) -> tuple[BackboneInfo, list[MethodInfo]]:
    """What the command's names mean, with what there is to say of it.  Raises `ConfigurationError`, `WorkerLost`."""
    recipe = choice.recipe
    request = ResolveRequest(options.backbone, options.weights, recipe.image_size, recipe.precision, options.methods)
    backbone, methods = executor.describe(request)
    for note in backbone.notes:
        say(note)
    return backbone, methods


def executor_for(options: argparse.Namespace) -> Executor:
    """Raises `ConfigurationError` when it cannot be had, `ValueError` when options contradict each other."""
    cluster = {"--ray-address": options.ray_address, "--gpus-per-cell": options.gpus_per_cell}
    cluster["--cpus-per-cell"] = options.cpus_per_cell
    if options.executor == "local":
        if given := [name for name, value in cluster.items() if value is not None]:
            raise ValueError(f"{given[0]} is for Ray: say --executor ray as well")
        if options.workers == 1 or options.dry_run:
            return WorkerProcess(options.results, numerics(options), options.plugin)
    elif options.workers != 1:
        raise ValueError("--workers is for the local executor; Ray has as many as --gpus-per-cell leaves room for")
    from ..execution.pool import WorkerPool
    from ..execution.supervised_worker import LocalBackend

    station = options.results, numerics(options), options.plugin, command()
    if options.executor == "local":
        return WorkerPool(LocalBackend(options.workers, station))
    from ..execution.ray_pool import RayBackend, Share

    share = Share(options.cpus_per_cell or options.threads, options.gpus_per_cell)
    return WorkerPool(RayBackend(options.ray_address, share, station))


def numerics(options: argparse.Namespace) -> Numerics:
    return Numerics(options.threads, options.engine, options.checkpointing, options.micro_batch)


def has(store: Store, cell: PlannedRun, complaints: list[str]) -> bool:
    """Whether a cell is stored, with the best epoch on test and the adapter where these are wanted."""
    record = store.get(cell.spec, complaints) if cell.oracle else None
    if cell.keep_adapter and not store.has_adapter(cell.spec):
        return False
    return store.has(cell.spec) if record is None else record["result"].get("oracle_accuracy") is not None


def missing_runs(store: Store, cells: Sequence[PlannedRun]) -> list[PlannedRun]:
    """What is still to be run; damaged records among those that had to be read are set aside and named."""
    stored = store.finished([cell.spec for cell in cells])
    complaints: list[str] = []
    missing = [
        cell
        for cell in cells
        if cell.spec.run_id() not in stored or ((cell.oracle or cell.keep_adapter) and not has(store, cell, complaints))
    ]
    say_all(complaints)
    return missing


def report(options: argparse.Namespace) -> int:
    """`vtab-peft report`."""
    return write_report(options.results, options.with_published)


def write_report(results: Path, with_published: bool = False, cells: Sequence[PlannedRun] | None = None) -> int:
    """Rebuild every derived file and print the tables, only those that hold any of `cells` if given.

    Returns the exit status.
    """
    from ..reporting.report import write

    keys = None if cells is None else {cell.spec.run_id() for cell in cells}
    written = write(Store(results), results, with_published, keys)
    say_all(written.complaints)
    print(written.text)
    if written.boards:
        named = f"and {pluralize(written.others, 'other board')}" if written.text and written.others else "report"
        print(f"{named}: {results / 'README.md'}, page: {results / 'index.html'}")
    return 0 if written.boards and not written.complaints else 1


def deadline_in(minutes: float | None) -> float | None:
    """On `time.monotonic`."""
    return None if minutes is None else time.monotonic() + 60 * minutes


def sweep(
    cells: Sequence[PlannedRun],
    executor: Executor,
    store: Store,
    deadline: float | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> SweepResult:
    """Run cells with progress shown on standard error.

    Raises:
        Terminated: SIGTERM came; the cell in flight had `grace_seconds` to end.
    """
    progress = Progress(cells)
    try:
        with graceful_shutdown(grace_seconds):
            return executor.execute(cells, store, progress, deadline)
    finally:
        progress.close()
        store.remove_temp_files()


def cached_tasks(tasks: Sequence[Task], preprocessing: Preprocessing) -> list[CachedTask]:
    """The tasks with their pixels ready; what is not yet in the cache is decoded now, with a bar.

    Raises:
        DataError: lists of tasks cannot be used, all of them before anything is decoded; or images cannot be.
    """
    root = cache.default_root()
    found: list[CachedTask | None] = []
    wrong: list[str] = []
    for task in tasks:
        try:
            found.append(cache.cached(task, preprocessing, root))
            if found[-1] is None and task.folder is not None:
                task.load(task)
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise DataError("\n".join(wrong))
    return [data or _decoded(task, preprocessing, root) for task, data in zip(tasks, found, strict=True)]


def _decoded(task: Task, preprocessing: Preprocessing, root: Path) -> CachedTask:
    with tqdm(desc=f"reading {task.name}", unit=" images", disable=not sys.stderr.isatty()) as bar:
        return cache.build(task, preprocessing, root, lambda done, of: advance(bar, done, of))


def dry_run(
    tasks: Sequence[Task],
    backbone: BackboneInfo,
    methods: Sequence[MethodInfo],
    choice: SweepConfig,
    store: Store,
    part: tuple[int, int],
    alone: bool,
) -> int:
    """Print the plan; nothing is run, built or written.

    part: as for `shard`; tasks not read yet are dealt out once they are, so all of their cells are counted.
    alone: whether one worker is to run them.
    """
    root, preprocessing = cache.default_root(), choice.preprocessing(backbone)
    found = {task.label: cache.cached(task, preprocessing, root) for task in tasks}
    ready = [data for data in found.values() if data is not None]
    unread = [label for label, data in found.items() if data is None]
    cells = shard(make_plan(backbone, methods, ready, choice), part, backbone)
    todo = missing_runs(store, cells)
    every, missing = _by_method(cells), _by_method(todo)
    more = len(unread) * len(choice.seeds)
    rows = []
    for method in methods:
        name = method.ref.spec
        own, left = every.get(name, []), missing.get(name, [])
        rates = {resolve(choice.recipe.for_task(task.name), method, backbone).lr for task in tasks}
        rows.append(
            (
                name,
                f"{method.trainable_params:,}",
                f"{rates.pop():g}" if len(rates) == 1 else "per task",
                len(own) - len(left),
                len(left) + more,
                estimate_of(left, unread),
            )
        )
    header = ("method", "trainable (no head)", "lr", "done", "to run", "estimate")
    seeds = " ".join(str(seed) for seed in choice.seeds)
    print(
        f"{backbone.ref.name}, recipe {choice.recipe.name}, seeds {seeds}, {pluralize(len(tasks), 'task')}, "
        f"on {backbone.device}\n"
    )
    print(tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=("left", *["right"] * 5)))
    more *= len(methods)
    asked = pluralize(len(cells) + more, "cell")
    print(f"\n{len(todo) + more} of {asked} to run, estimate {estimate_of(todo, unread, alone)}")
    if unread:
        shared = f" (before they are shared among {part[1]} parts)" if part[1] > 1 else ""
        print(f"{more} of them{shared} are {UNREAD}: {', '.join(unread)}")
    return 0


def _by_method(cells: Sequence[PlannedRun]) -> dict[str, list[PlannedRun]]:
    found: dict[str, list[PlannedRun]] = {}
    for cell in cells:
        found.setdefault(cell.spec.method.spec, []).append(cell)
    return found
