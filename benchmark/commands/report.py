"""The command `report`: rebuild leaderboards, tables, figures and the page from stored runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..plan import PlannedRun
from ..reporting.wording import pluralize
from ..storage.schema import Run
from ..storage.store import Store
from .messages import say_all


def report(options: argparse.Namespace) -> int:
    """Run `vtab-peft report`."""
    return write_report(options.results, options.with_published, axes=options.axes)


def write_report(
    results: Path,
    with_published: bool = False,
    runs: Sequence[PlannedRun | Run] | None = None,
    axes: Sequence[str] = (),
) -> int:
    """Rebuild every derived file, print the leaderboards and return the exit status.

    runs: print only leaderboards that contain one of these runs; None prints all.  axes: cost columns that accuracy is
    also drawn against.
    """
    from ..reporting.report import write

    run_ids = None if runs is None else {run.spec.run_id() for run in runs}
    written = write(Store(results), results, with_published, run_ids, axes)
    say_all(written.problems)
    print(written.text)
    if written.leaderboards:
        others = (
            f"and {pluralize(written.others, 'other leaderboard')}" if written.text and written.others else "report"
        )
        print(f"{others}: {results / 'README.md'}, page: {results / 'index.html'}")
    return 0 if written.leaderboards and not written.problems else 1
