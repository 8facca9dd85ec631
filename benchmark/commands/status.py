"""The verb `status`: what is done, running, failed and missing, of a command's cells or of a whole results folder."""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from ...datasets import cache
from ...datasets.tasks import find
from ..engine.numerics import Numerics
from ..execution.locks import current
from ..execution.progress import duration
from ..execution.worker_process import WorkerProcess
from ..plan import PlannedRun, make_plan, shard
from ..reporting.wording import pluralize
from ..spec import RunSpec
from ..storage.store import Store
from .run import choice_of, describe, missing_runs

SHOWN = 20
"""Failures and running cells that are named one by one (ours)."""
Failures = Sequence[dict[str, Any]]
"""Records of failed cells."""
STATES = ("done", "running", "failed", "missing")


def status(options: argparse.Namespace) -> int:
    """`vtab-peft status`: of the cells that the same options of `run` mean, or of everything that is stored.

    Raises:
        ValueError: options of a plan without --methods and --backbone, or no results folder.
    """
    given = {name: value for name in options.of_a_plan if (value := getattr(options, name)) is not None}
    if given and not {"methods", "backbone"} <= given.keys():
        raise ValueError(
            f"--{next(iter(given)).replace('_', '-')} is of a plan, which needs --methods and --backbone; "
            "without options of a plan status shows what is stored"
        )
    store = Store(options.results)
    store.require_results_folder()
    plan = argparse.Namespace(**{**vars(options), **options.of_a_plan, **given})
    complaints: list[str] = []
    failures = list(store.failures(complaints))
    text = _of_plan(plan, store, failures) if given else _of_store(store, failures, complaints)
    print("\n".join([text, *complaints]))
    return 1 if complaints else 0


def _of_plan(options: argparse.Namespace, store: Store, failures: Failures) -> str:
    tasks, choice, root = find(options.tasks, options.suite, options.data), choice_of(options), cache.default_root()
    worker = WorkerProcess(options.results, Numerics(options.threads), options.plugin)
    try:
        backbone, methods = describe(options, choice, worker)
    finally:
        worker.stop()
    found = {task.label: cache.cached(task, choice.preprocessing(backbone), root) for task in tasks}
    cells = make_plan(backbone, methods, [data for data in found.values() if data], choice)
    cells = shard(cells, options.shard, backbone)
    states = states_of(cells, store)
    counts: dict[str, Counter[str]] = {}
    for cell in cells:
        counts.setdefault(cell.spec.task.suite, Counter())[states[cell.spec.run_id()]] += 1
    unread = [label for label, data in found.items() if data is None]
    rows = [(suite, *(of[state] for state in STATES), sum(of.values())) for suite, of in counts.items()]
    parts = [tabulate(rows, ("suite", *STATES, "in all"), tablefmt="simple")]
    if unread:
        more = len(unread) * len(methods) * len(choice.seeds)
        parts.append(f"and {pluralize(more, 'cell')} of tasks not read yet: {', '.join(unread)}")
    keys = set(states)
    own = [record for record in failures if record["key"] in keys]
    return "\n".join([*parts, *_running(store, keys), *_failed(store, own)])


def states_of(cells: Sequence[PlannedRun], store: Store) -> dict[str, str]:
    """Key -> one of `STATES`.  A cell that runs again after it failed is running."""
    missing = {cell.spec.run_id() for cell in missing_runs(store, cells)}
    running = {key for key, _, abandoned in current(store.root / "claims") if not abandoned}
    failed = {path.stem for path in (store.root / "failed").glob("*.json")}
    states = {}
    for cell in cells:
        key = cell.spec.run_id()
        left = "running" if key in running else "failed" if key in failed else "missing"
        states[key] = left if key in missing else "done"
    return states


def _of_store(store: Store, failures: Failures, complaints: list[str]) -> str:
    runs = store.frame(complaints)
    columns = ["suite", "backbone", "recipe", "split"]
    done = Counter(runs[columns].itertuples(index=False, name=None))
    repeated = Counter(runs.loc[runs["repetition"] > 1, columns].itertuples(index=False, name=None))
    failed: Counter[tuple[Any, ...]] = Counter(
        (spec["task"]["suite"], spec["backbone"]["name"], spec["recipe"]["name"], spec["split"])
        for spec in (record["spec"] for record in failures)
    )
    rows = [(*where, done[where], repeated[where], failed[where]) for where in sorted({*done, *failed})]
    parts = [tabulate(rows, (*columns, "done", "repeated", "failed"), tablefmt="simple")] if rows else []
    total = f"{store.root}/ holds {pluralize(len(runs), 'run')} and {pluralize(len(failures), 'failed cell')}"
    return "\n".join([*parts, total, *_running(store), *_failed(store, failures)])


def _running(store: Store, keys: set[str] | None = None) -> list[str]:
    claims = [found for found in current(store.root / "claims") if keys is None or found[0] in keys]
    lines = [
        f"{'abandoned' if abandoned else 'running'}: {claim.cell}, by {claim}, "
        f"begun {duration(max(0.0, time.time() - claim.started))} ago"
        for _, claim, abandoned in claims
    ]
    return _cut(lines)


def _failed(store: Store, failures: Failures) -> list[str]:
    """What failed and where its record is, then what to do."""
    lines, again = [], False
    for record in failures:
        spec = RunSpec.from_json(record["spec"])
        outdated = store.has_another_version(spec)
        again = again or not outdated
        note = f"; it has succeeded since, as another version of {spec.method.name}: delete it" if outdated else ""
        lines.append(f"failed: {_name(record['spec'])}: {record['reason']} ({store.failure(spec)}){note}")
    advice = (
        "`vtab-peft retry`, with the options of `run`, runs what failed again; a cell whose method or plug-in file has "
        "changed since is another cell: delete the record of its failure"
    )
    return [*_cut(lines), *([advice] if again else [])]


def _cut(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"and {more} more"] if more > 0 else [])


def _name(spec: dict[str, Any]) -> str:
    return f"{spec['task']['name']} · {spec['method']['spec']} · seed {spec['seed']}"
