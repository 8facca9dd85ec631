"""The command `status`: count finished, running, failed and missing runs, of a plan or of a results folder."""

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from ...datasets.tasks import find
from ..engine.numerics import Numerics
from ..escaping import one_line
from ..execution.local_pool import local_pool
from ..execution.locks import RunLock, list_locks
from ..execution.messages import WorkerConfig
from ..execution.progress import duration
from ..plan import PlannedRun, make_plan, shard
from ..reporting.text_table import text_table
from ..reporting.wording import pluralize
from ..spec import RunSpec
from ..storage.schema import Failure, Run
from ..storage.store import Store
from .messages import unread_note
from .run import check_recipe, check_task_folders, missing_runs, read_cache, resolve_names, sweep_config

SHOWN = 20
"""Largest number of failed runs, and of running runs, that are listed (ours)."""
Locks = Sequence[tuple[str, RunLock, bool]]
"""(run ID, lock, abandoned or not) of each lock."""
FOLLOW_SECONDS = 10.0
"""Time between two looks of `--follow` (ours)."""
STATES = ("done", "running", "failed", "missing")


def status(options: argparse.Namespace) -> int:
    """Run `vtab-peft status`: of the runs that the same options of `run` mean, or of everything that is stored.

    Raises:
        ValueError: options of a plan without --methods and --backbone, or no results folder.
    """
    given = {name: value for name in options.of_a_plan if (value := getattr(options, name)) is not None}
    if given and not {"methods", "backbone"} <= given.keys():
        option = options.option_names[next(iter(given))]
        raise ValueError(f"{option} needs --methods and --backbone; without such options, status shows what is stored")
    store = Store(options.results)
    store.require_results_folder()
    if given and options.last:
        raise ValueError("--last lists what is stored; leave out the options of a plan")
    plan = _plan(argparse.Namespace(**{**vars(options), **options.of_a_plan, **given})) if given else None
    while True:
        failures, problems = store.load_failures()
        locks, damaged = list_locks(store.root / "claims")
        problems += damaged
        if plan is not None:
            lines = _of_plan(plan, store, failures, locks)
        else:
            runs, more = store.load_runs()
            lines = _last(runs, options.last) if options.last else _of_store(store, runs, failures, locks)
            problems += more
        print("\n".join([*lines, *problems]), flush=True)
        if not options.follow or not running_in(locks):
            return 1 if problems else 0
        time.sleep(FOLLOW_SECONDS)
        print(f"\n{time.strftime('%H:%M:%S')}")


def _plan(options: argparse.Namespace) -> tuple[list[PlannedRun], list[str]]:
    """Return the runs that the options mean, and the tasks that are not decoded yet."""
    tasks, config = find(options.tasks, options.suite, options.data), sweep_config(options)
    check_recipe(config.recipe, tasks)
    check_task_folders(tasks)
    pool = local_pool(WorkerConfig(options.results, Numerics(options.threads), options.plugin))
    try:
        backbone, methods = resolve_names(options, pool, config.recipe)
    finally:
        pool.stop()
    found, unread = read_cache(tasks, config.preprocessing(backbone))
    return shard(make_plan(backbone, methods, found, config), options.shard, backbone), unread


def _of_plan(
    plan: tuple[list[PlannedRun], list[str]], store: Store, failures: Sequence[Failure], locks: Locks
) -> list[str]:
    runs, unread = plan
    states = states_of(runs, store, running_in(locks))
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        counts[run.spec.task.suite][states[run.spec.run_id()]] += 1
    rows = [(suite, *(of[state] for state in STATES), sum(of.values())) for suite, of in counts.items()]
    lines = [text_table(("suite", *STATES, "total"), rows, "l" + "r" * (len(STATES) + 1))]
    if unread:
        lines.append(unread_note(unread))
    return [
        *lines,
        *_running(locks, set(states)),
        *_failed(store, [one for one in failures if one.spec.run_id() in states]),
    ]


def states_of(runs: Sequence[PlannedRun], store: Store, running: Collection[str]) -> dict[str, str]:
    """Return run ID -> one of `STATES`; a failed run that is being retried counts as running."""
    missing = {run.spec.run_id() for run in missing_runs(store, runs)}
    failed = {path.stem for path in (store.root / "failed").glob("*.json")}

    def state(run_id: str) -> str:
        if run_id not in missing:
            return "done"
        return "running" if run_id in running else "failed" if run_id in failed else "missing"

    return {run_id: state(run_id) for run_id in (run.spec.run_id() for run in runs)}


def running_in(locks: Locks) -> set[str]:
    """Return the IDs of the runs that a command executes now."""
    return {run_id for run_id, _, abandoned in locks if not abandoned}


def _last(runs: Sequence[Run], number: int) -> list[str]:
    """Return a table of the runs that ended last."""
    latest = sorted(runs, key=lambda run: (run.created, run.run_id), reverse=True)[:number]
    rows = [
        (
            run.created,
            run.run_id,
            f"{run.spec.task.suite}/{run.spec.task.name}",
            run.spec.method.spec,
            run.spec.recipe.name,
            run.spec.seed,
            run.spec.split,
            f"{100 * run.accuracy:.1f}",
        )
        for run in latest
    ]
    header = ("ended", "run ID", "task", "method", "recipe", "seed", "split", "accuracy")
    return [text_table(header, rows, "lllllrlr")]


def _of_store(store: Store, runs: Sequence[Run], failures: Sequence[Failure], locks: Locks) -> list[str]:
    columns = ["suite", "backbone", "recipe", "split"]
    done = Counter(_group(run.spec) for run in runs)
    repeated = Counter(_group(run.spec) for run in runs if run.repetition > 1)
    failed = Counter(_group(failure.spec) for failure in failures)
    rows = [(*group, done[group], repeated[group], failed[group]) for group in sorted({*done, *failed})]
    header = (*columns, "done", "repeated", "failed")
    lines = [text_table(header, rows, "l" * len(columns) + "rrr")] if rows else []
    total = f"{store.root}/ contains {pluralize(len(runs), 'result')} and {pluralize(len(failures), 'failed run')}"
    return [*lines, total, *_running(locks), *_failed(store, failures)]


def _group(spec: RunSpec) -> tuple[str, str, str, str]:
    return spec.task.suite, spec.backbone.name, spec.recipe.name, spec.split


def _running(locks: Locks, run_ids: set[str] | None = None) -> list[str]:
    """Return a line per locked run."""
    return _shorten(
        [
            f"{'abandoned' if abandoned else 'running'}: {run_id}, {one_line(f'{lock.run}, by {lock}')}, "
            f"started {duration(max(0.0, time.time() - lock.started))} ago"
            for run_id, lock, abandoned in locks
            if run_ids is None or run_id in run_ids
        ]
    )


def _failed(store: Store, failures: Sequence[Failure]) -> list[str]:
    """Return a line per failed run with the path of its record, and advice."""
    lines, retry = [], False
    for failure in failures:
        spec = failure.spec
        note = ""
        if store.has(spec):
            note = "; its result is stored: delete this record"
        elif store.has_another_version(spec):
            note = f"; another version of {spec.method.name} has succeeded since: delete this record"
        retry = retry or not note
        name = f"{spec.run_id()}, {spec.task.name} · {spec.method.spec} · seed {spec.seed}"
        lines.append(f"failed: {one_line(f'{name}: {failure.reason}')} ({store.failure_path(spec)}){note}")
    advice = (
        "To run failed runs again, use `vtab-peft retry` with the options of `run`; those of `tune` are repeated by "
        "the same `tune`.  If the method or its plug-in file has changed since, it is another run: delete the record "
        "of the failure."
    )
    return [*_shorten(lines), *([advice] if retry else [])]


def _shorten(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
