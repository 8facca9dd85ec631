"""The commands `run` and `retry`: train and evaluate what is missing, then rebuild the report."""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from ...datasets import cache
from ...datasets.archive import HELP
from ...datasets.cache import CachedTask, Preprocessing
from ...datasets.few_shots import Draw
from ...datasets.first_of import first_of
from ...datasets.task import DataError, Task, nearest
from ...datasets.tasks import find, table
from ..execution.messages import ResolveRequest
from ..execution.pool import WorkerPool
from ..execution.progress import Progress, advance
from ..execution.scheduler import SweepResult
from ..execution.signals import GRACE_SECONDS, Terminated, graceful_shutdown
from ..plan import BackboneInfo, MethodInfo, PlannedRun, SweepConfig, make_plan, resolve, shard
from ..recipes import choose_recipe
from ..reporting.text_table import text_table
from ..reporting.wording import pluralize
from ..spec import OTHERS, Recipe
from ..storage.json_io import require_writable
from ..storage.schema import Run
from ..storage.store import Store
from .accuracy_table import accuracy_table
from .messages import (
    announcement,
    estimate_of,
    load_latest,
    one_worker,
    say,
    say_all,
    say_outcome,
    say_resumable,
    unread_note,
)
from .method_names import check_names
from .pool_options import open_pool
from .report import write_report

SHOWN = 3
"""Missing folders that a message names (ours)."""


def run_missing(options: argparse.Namespace) -> int:
    """Run `vtab-peft run` or `vtab-peft retry` and return the exit status."""
    if (done := execute(options)) is None:
        return 0
    runs, result = done
    if options.split == "test":
        write_report(options.results, runs=runs)
    elif found := stored_runs(Store(options.results), runs):
        seeds = " ".join(map(str, sorted({run.spec.seed for run in found})))
        print(f"{accuracy_table(found, 1)}\n\nAccuracy on val in percent, seeds {seeds}; it ranks nothing.")
    return 1 if result.failed else 0


def execute(options: argparse.Namespace) -> tuple[list[PlannedRun], SweepResult] | None:
    """Execute the missing runs of a plan; return the whole plan and the result, or None for `--dry-run`."""
    deadline = deadline_in(options.max_minutes)  # first, because the limit of a job includes the start of the worker
    if options.oracle and options.split != "test":
        raise ValueError("--oracle records the best test epoch; use it with --split test")
    tasks, config = find(options.tasks, options.suite, options.data), sweep_config(options)
    check_recipe(config.recipe, tasks)
    check_task_folders(tasks)
    store, pool = Store(options.results), open_pool(options)
    try:
        backbone, methods = resolve_names(options, pool, config.recipe)
        if options.dry_run:
            dry_run(options, config, tasks, backbone, methods)
            return None
        ready = cached_tasks(tasks, config.preprocessing(backbone))
        runs = shard(make_plan(backbone, methods, ready, config), options.shard, backbone)
        missing = runs if options.again else missing_runs(store, runs)
        todo = [run for run in missing if store.failure_path(run.spec).exists()] if options.only_failed else missing
        never_tried = len(missing) - len(todo)
        say(announcement(runs, todo, backbone, config.recipe, options.engine, never_tried, one_worker(options)))
        result = sweep(todo, pool, store, deadline, options.grace)
    except (KeyboardInterrupt, Terminated):
        say_resumable(store)
        raise
    finally:
        pool.stop()
    say_outcome(result, store)
    return runs, result


def check_recipe(recipe: Recipe, tasks: Sequence[Task]) -> None:
    """Raise `ValueError` if the recipe has no settings for a task, or settings for an unknown one."""
    for task in tasks:
        recipe.for_task(task.name)
    known = {OTHERS, *(task.name for task in tasks), *(name for _, name in table())}
    if unknown := [name for name in recipe.tasks if name not in known]:
        near = nearest(unknown[0], known)
        raise ValueError(f"the recipe has settings for {unknown[0]!r}, which is no task of this command{near}")


def check_task_folders(tasks: Sequence[Task]) -> None:
    """Raise `DataError` if folders of tasks do not exist, before a worker is started and weights are downloaded."""
    missing = [str(task.folder) for task in tasks if task.folder is not None and not task.folder.is_dir()]
    if missing:
        raise DataError(f"there is no folder {first_of(missing, SHOWN)}; {HELP}")


def sweep_config(options: argparse.Namespace) -> SweepConfig:
    """Return the settings of a sweep that the options of `run` ask for."""
    return SweepConfig(
        recipe=choose_recipe(options.recipe, options.settings),
        seeds=list(dict.fromkeys(options.seeds)),
        split=options.split,
        normalisation=options.normalisation,
        interpolation=options.interpolation,
        oracle=options.oracle,
        keep_adapters=options.keep_adapters,
        keep_logits=options.keep_logits,
        draws=draws(options),
    )


def draws(options: argparse.Namespace) -> list[Draw]:
    """Return the few-shot draws that `--shots` and `--shot-seed` ask for."""
    if options.shot_seed is not None and not options.shots:
        raise ValueError("--shot-seed chooses the images of --shots; give --shots too")
    seeds = [0, 1, 2] if options.shot_seed is None else dict.fromkeys(options.shot_seed)
    return [Draw(shots, seed) for shots in dict.fromkeys(options.shots) for seed in seeds]


def resolve_names(
    options: argparse.Namespace,
    pool: WorkerPool,
    recipe: Recipe,
    variants: bool = False,
    grid: Mapping[str, Sequence[Any]] | None = None,
) -> tuple[BackboneInfo, list[MethodInfo]]:
    """Resolve the names of backbone and methods in a worker, and print the notes about them.

    variants: also return the points of each method's search grid, or of `grid`: argument -> values.

    Raises:
        ValueError: there is no method of this name.
        ConfigurationError: another name, an argument or weights file is wrong.
        WorkerStartError: the worker died or hung.
    """
    if not options.plugin:
        check_names(options.methods)
    request = ResolveRequest(
        options.backbone,
        options.weights,
        recipe.image_size,
        recipe.precision,
        options.methods,
        variants=variants,
        grid=grid,
    )
    backbone, methods = pool.resolve(request)
    say_all(backbone.notes)
    return backbone, methods


def stored_runs(store: Store, runs: Sequence[PlannedRun]) -> list[Run]:
    """Return the stored records of planned runs."""
    return [found for run in runs if (found := load_latest(store, run.spec)) is not None]


def missing_runs(store: Store, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the runs that are not stored with everything asked for; quarantine damaged records on the way."""
    stored = store.finished(run.spec for run in runs)
    return [run for run in runs if run.spec.run_id() not in stored or not _is_complete(store, run)]


def _is_complete(store: Store, run: PlannedRun) -> bool:
    """Return True if a stored run has the best test epoch, the logits and the adapter, where these are asked for."""
    if run.oracle:
        found = load_latest(store, run.spec)
        if found is None or found.oracle_accuracy is None:
            return False
    if run.keep_logits and not store.has_logits(run.spec):
        return False
    return store.has_adapter(run.spec) if run.keep_adapter else True


def deadline_in(minutes: float | None) -> float | None:
    """Return a deadline on the clock of `time.monotonic`."""
    return None if minutes is None else time.monotonic() + 60 * minutes


def sweep(
    runs: Sequence[PlannedRun],
    pool: WorkerPool,
    store: Store,
    deadline: float | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> SweepResult:
    """Execute runs and show the progress on standard error.

    Raises:
        StoreError: the results folder cannot be created.
        Terminated: SIGTERM was received; the current run had `grace_seconds` to finish.
    """
    require_writable(store.root / "runs")  # `status` knows it before the first run has ended
    progress = Progress(runs)
    try:
        with graceful_shutdown(grace_seconds):
            return pool.execute(runs, store, progress, deadline)
    finally:
        progress.close()
        store.remove_temp_files()


def read_cache(tasks: Sequence[Task], preprocessing: Preprocessing) -> tuple[list[CachedTask], list[str]]:
    """Return all tasks in order, and the labels of those that were not decoded yet; these have no data hash."""
    root = cache.default_root()
    found = [cache.cached(task, preprocessing, root) or cache.undecoded(task, preprocessing) for task in tasks]
    return found, [data.task.label for data in found if not data.data]


def cached_tasks(tasks: Sequence[Task], preprocessing: Preprocessing, full: bool = False) -> list[CachedTask]:
    """Return the decoded tasks; tasks that are not in the cache are decoded now, with a progress bar.

    Warnings about labels and damaged files of the cache are printed.

    full: check cached arrays in full, see `cache.cached`.

    Raises:
        DataError: list files are wrong (all of them are checked before anything is decoded), or an image is.
    """
    root = cache.default_root()
    found: list[CachedTask | None] = []
    problems: list[str] = []
    for task in tasks:
        try:
            found.append(cache.cached(task, preprocessing, root, full))
            if found[-1] is None and task.folder is not None:
                task.load(task)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    ready = [data or _decode(task, preprocessing) for task, data in zip(tasks, found, strict=True)]
    for task, data in zip(tasks, ready, strict=True):
        say_all(f"{task.label}: warning: {text}" for text in (*task.left_out, *data.warnings))
    return ready


def _decode(task: Task, preprocessing: Preprocessing) -> CachedTask:
    with tqdm(desc=f"reading {task.name}", unit=" images", disable=not sys.stderr.isatty()) as bar:
        made = cache.build(task, preprocessing, cache.default_root(), lambda done, of: advance(bar, done, of))
    for path in made.replaced:
        say(f"{task.label}: {path} was damaged and is decoded again; runs that used it may be wrong, see `verify`")
    return made


def dry_run(
    options: argparse.Namespace,
    config: SweepConfig,
    tasks: Sequence[Task],
    backbone: BackboneInfo,
    methods: Sequence[MethodInfo],
) -> None:
    """Print the plan: per method the runs that are done and missing, and an estimate; change no file.

    Runs of tasks that are not decoded yet count as missing; their time is estimated by the number of images.
    """
    store = Store(options.results)
    found, unread = read_cache(tasks, config.preprocessing(backbone))
    runs = shard(make_plan(backbone, methods, found, config), options.shard, backbone)
    missing = missing_runs(store, runs)
    planned, todo = _by_method(runs), _by_method(missing)
    rows = []
    for name, method in ((method.ref.spec, method) for method in methods):
        rates = {resolve(config.recipe.for_task(task.name), method, backbone).lr for task in tasks}
        rows.append(
            (
                name,
                f"{method.trainable_params:,}",
                f"{rates.pop():g}" if len(rates) == 1 else "per task",
                len(planned[name]) - len(todo[name]),
                len(todo[name]),
                estimate_of(todo[name]),
            )
        )
    header = ("method", "trainable (no head)", "lr", "done", "to do", "estimate")
    seeds = " ".join(map(str, config.seeds))
    print(
        f"{backbone.ref.name}, recipe {config.recipe.name}, seeds {seeds}, {pluralize(len(tasks), 'task')}, "
        f"on {backbone.device}\n"
    )
    print(text_table(header, rows, "l" + "r" * 5))
    total = pluralize(len(runs), "run")
    print(f"\n{len(missing)} of {total} to do, estimate {estimate_of(missing, one_worker(options))}")
    if unread:
        print(unread_note(unread))


def _by_method(runs: Sequence[PlannedRun]) -> defaultdict[str, list[PlannedRun]]:
    found: defaultdict[str, list[PlannedRun]] = defaultdict(list)
    for run in runs:
        found[run.spec.method.spec].append(run)
    return found
