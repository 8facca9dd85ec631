"""Messages of the commands that execute runs: the announcement, the time estimate and the outcome."""

import argparse
import sys
from collections.abc import Iterable, Sequence

from ...datasets.reading import InvalidFile
from ..engine.numerics import Engine
from ..execution.progress import duration
from ..execution.scheduler import SweepResult
from ..plan import BackboneInfo, PlannedRun
from ..reporting.wording import pluralize
from ..spec import Recipe, RunSpec
from ..storage.json_io import StoreError
from ..storage.schema import Run
from ..storage.store import Store

LONG_SECONDS = 600.0
"""Duration of a sweep on a GPU from which compiling each method pays (ours)."""


def announcement(
    runs: Sequence[PlannedRun],
    todo: Sequence[PlannedRun],
    backbone: BackboneInfo,
    recipe: Recipe,
    engine: Engine,
    never_tried: int = 0,
    one_worker: bool = True,
) -> str:
    """Return what will run, where, for how long, and which option would make it faster.

    never_tried: number of runs that `retry` skips because they did not fail; they are not stored either.
    """
    seconds = sum(run.seconds for run in todo)
    notes = [f"{len(runs) - len(todo) - never_tried} of {len(runs)} stored already"] if len(runs) > len(todo) else []
    if never_tried:
        notes.append(f"{never_tried} neither stored nor failed, left to `vtab-peft run`")
    done = f" ({'; '.join(notes)})" if notes else ""
    slow = backbone.on_gpu and engine == "eager" and seconds > LONG_SECONDS
    advice = "; --engine compiled_graphs is faster for a sweep of this length" if slow else ""
    if engine != "eager" and not backbone.on_gpu:
        advice = f"; --engine {engine} compiles each method on this CPU before its first run"
    where = f"{backbone.ref.name}, recipe {recipe.name}, on {backbone.device}"
    return f"{pluralize(len(todo), 'run')} to do{done}: {where}{about(todo, one_worker)}{advice}"


def about(runs: Sequence[PlannedRun], one_worker: bool) -> str:
    """Return the estimated time as the end of a sentence; empty if there are no runs."""
    return f", about {estimate_of(runs, one_worker)}" if runs else ""


def estimate_of(runs: Sequence[PlannedRun], one_worker: bool = True) -> str:
    """Return the estimated time of runs.

    The speed-up of several workers depends on whether they share a device, so the time is that of one worker.
    """
    seconds = sum(run.seconds for run in runs)
    return f"{duration(seconds)}{'' if one_worker or not runs else ' with one worker'}"


def unread_note(unread: Sequence[str]) -> str:
    """Return a note about tasks that are not decoded yet, so that the IDs of their runs are unknown."""
    return f"not decoded yet, so that their runs count as missing: {', '.join(unread)}"


def one_worker(options: argparse.Namespace) -> bool:
    """Return True if one local worker executes all runs."""
    return options.executor == "local" and options.workers == 1 and options.workers_per_gpu is None


def say_outcome(result: SweepResult, store: Store) -> None:
    """Print what was not run, and each failure with the path of its traceback."""
    if result.elsewhere:
        where = f"other commands that use {store.root}/ (see `vtab-peft status`)"
        say(f"{pluralize(result.elsewhere, 'run')} left to {where}")
    if result.left:
        say(f"{pluralize(result.left, 'run')} not started for lack of time; the same command continues from here")
    for run, reason in result.failed:
        where = f" (traceback in {store.failure_path(run.spec)})" if _has_traceback(store, run) else ""
        say(f"failed: {run}: {reason}{where}")


def _has_traceback(store: Store, run: PlannedRun) -> bool:
    try:
        failure = store.load_failure(run.spec)
    except (InvalidFile, StoreError):
        return False
    return failure is not None and bool(failure.traceback)


def load_latest(store: Store, spec: RunSpec) -> Run | None:
    """Load the latest valid record of a run, and print which damaged records were quarantined."""
    run, problems = store.latest(spec)
    say_all(problems)
    return run


def say_resumable(store: Store) -> None:
    """Print that an interrupted command can be continued, if it has stored something."""
    if store.root.exists():
        say(f"every finished run is stored in {store.root}/; the same command continues from there")


def say_all(lines: Iterable[str]) -> None:
    """Print lines to standard error."""
    for line in lines:
        say(line)


def say(text: str) -> None:
    """Print a line to standard error."""
    print(text, file=sys.stderr, flush=True)
