"""What a sweep tells the person who typed it: what is about to run, how long it takes, and what became of it."""

import argparse
import sys
from collections.abc import Sequence

from ..engine.numerics import Engine
from ..execution.progress import duration
from ..execution.scheduler import SweepResult
from ..plan import BackboneInfo, PlannedRun
from ..reporting.wording import pluralize
from ..spec import Recipe
from ..storage.store import Store

LONG_SECONDS = 600.0
"""Of a sweep on a GPU, from which compiling each method once pays (ours)."""
UNREAD = "of tasks not read yet, so neither estimated nor looked for in the results"
"""What a plan says of cells whose key needs the hash of data that is still to be read."""


def announcement(
    cells: Sequence[PlannedRun],
    todo: Sequence[PlannedRun],
    backbone: BackboneInfo,
    recipe: Recipe,
    engine: Engine,
    not_tried: int = 0,
    alone: bool = True,
) -> str:
    """What is about to run, where, for how long, and what would be faster.

    not_tried: how many of the cells have neither succeeded nor failed, and are not to be run either.
    alone: whether one worker runs them.
    """
    seconds = sum(cell.seconds for cell in todo)
    notes = [f"{len(cells) - len(todo) - not_tried} of {len(cells)} are there"] if len(cells) > len(todo) else []
    if not_tried:
        notes.append(f"{not_tried} never ran as they are now asked for: `vtab-peft run` runs them")
    done = f" ({'; '.join(notes)})" if notes else ""
    slow = backbone.on_gpu and engine == "eager" and seconds > LONG_SECONDS
    advice = "; a sweep as long as this ends sooner with --engine compiled_graphs" if slow else ""
    place = f"{backbone.ref.name}, recipe {recipe.name}, on {backbone.device}"
    return f"{pluralize(len(todo), 'cell')} to run{done}: {place}{about(todo, alone)}{advice}"


def about(cells: Sequence[PlannedRun], alone: bool) -> str:
    """How long cells take, as the end of a sentence; nothing where there are none.  alone: as for `announcement`."""
    return f", about {estimate_of(cells, [], alone)}" if cells else ""


def estimate_of(cells: Sequence[PlannedRun], unread: Sequence[str], alone: bool = True) -> str:
    """How long cells take that run beside those of tasks not read yet, of which nobody knows.

    What several workers gain depends on whether they share a device, so the time is that of one, and says so.
    """
    if unread and not cells:
        return "unknown"
    seconds = sum(cell.seconds for cell in cells)
    return f"{'over ' if unread else ''}{duration(seconds)}{'' if alone or not cells else ' of one worker'}"


def one_worker(options: argparse.Namespace) -> bool:
    return options.executor == "local" and options.workers == 1


def say_outcome(tally: SweepResult, store: Store) -> None:
    if tally.elsewhere:
        left_to = f"left to other commands that share {store.root}/ (see `vtab-peft status`)"
        say(f"{pluralize(tally.elsewhere, 'cell')} {left_to}")
    if tally.left:
        say(f"{pluralize(tally.left, 'cell')} not started for lack of time; the same command goes on from here")
    for cell, reason in tally.failed:
        where = f" (traceback in {store.failure(cell.spec)})" if store.has_traceback(cell.spec) else ""
        say(f"failed: {cell}: {reason}{where}")


def say_all(complaints: Sequence[str]) -> None:
    for complaint in complaints:
        say(complaint)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
