"""The command `agreement`: how often methods, and seeds of one method, predict different classes."""

import argparse
import sys

from ..reporting.agreement import Agreement, agreement
from ..reporting.agreement_text import to_csv, to_text
from ..reporting.compare import find_leaderboard
from ..reporting.drawing import FOR_PAPERS
from ..reporting.leaderboard_id import by_leaderboard
from ..reporting.leaderboards import Leaderboard, leaderboard
from ..storage.json_io import write_atomically
from ..storage.store import Store


def run(options: argparse.Namespace) -> int:
    """Run `vtab-peft agreement`: print the tables and, with `--to`, write them with the figure; return the exit status.

    Raises:
        ValueError: no or several leaderboards have the methods, or predictions are missing.
    """
    stored, problems = Store(options.results).load_runs()
    for problem in problems:
        print(problem, file=sys.stderr)
    boards = [(leaderboard(identity, own), own) for identity, own in by_leaderboard(stored)]
    entry, runs, rows = find_leaderboard(boards, options.methods, options.board, options.results)
    found = agreement(entry, runs, rows or entry.rows)
    print(to_text(found, entry, options.by_task))
    if options.to:
        for name, content in files(found, entry).items():
            write_atomically(options.to / name, content)
        print(f"tables and figure: {options.to}", file=sys.stderr)
    return 1 if problems else 0


def files(found: Agreement, entry: Leaderboard) -> dict[str, bytes]:
    """Return the contents of the files, by name."""
    from ..reporting.figures.agreement import draw  # matplotlib, only now
    from ..reporting.figures.style import image_files, paper_style

    with paper_style():
        drawn = image_files({"agreement": draw(found, entry)}, FOR_PAPERS)
    tables = {
        "agreement.csv": to_csv(found),
        "agreement.md": to_text(found, entry, by_task=True, style="github") + "\n",
    }
    return {name: text.encode() for name, text in tables.items()} | drawn
