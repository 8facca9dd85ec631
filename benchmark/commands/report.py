"""The command `report`: rebuild leaderboards, tables, figures and the page from stored runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..plan import PlannedRun
from ..reporting.drawing import REPORT, Drawing
from ..reporting.wording import pluralize
from ..storage.schema import Run
from ..storage.store import Store
from .messages import say_all


def report(options: argparse.Namespace) -> int:
    """Run `vtab-peft report`."""
    formats = tuple(dict.fromkeys(["svg", *options.formats]))  # the page and README.md show the SVG
    drawing = Drawing(formats, not options.no_titles, tuple(options.methods))
    return write_report(options.results, options.with_published, axes=options.axes, drawing=drawing, out=options.out)


def write_report(
    results: Path,
    with_published: bool = False,
    runs: Sequence[PlannedRun | Run] | None = None,
    axes: Sequence[str] = (),
    drawing: Drawing = REPORT,
    out: Path | None = None,
) -> int:
    """Rebuild every derived file, print the leaderboards and return the exit status.

    runs: print only leaderboards that contain one of these runs; None prints all.  axes: cost columns that accuracy is
    also drawn against.  drawing: how figures are drawn.  out: where the files go; None: into `results`.
    """
    from ..reporting.report import write

    run_ids = None if runs is None else {run.spec.run_id() for run in runs}
    out = out or results
    written = write(Store(results), out, with_published, run_ids, axes, drawing)
    say_all(written.problems)
    print(written.text)
    if written.leaderboards:
        others = (
            f"and {pluralize(written.others, 'other leaderboard')}" if written.text and written.others else "report"
        )
        print(f"{others}: {out / 'README.md'}, page: {out / 'index.html'}")
    return 0 if written.leaderboards and not written.problems else 1
