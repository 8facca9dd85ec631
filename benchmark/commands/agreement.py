"""The command `agreement`: how often methods, and seeds of one method, predict different classes."""

import argparse

from ..reporting.agreement import agreement
from ..reporting.agreement_text import to_csv, to_text
from ..reporting.compare import find_leaderboard
from ..reporting.figures.agreement import draw
from ..reporting.leaderboard_id import by_leaderboard
from ..reporting.leaderboards import leaderboard
from ..storage.store import Store
from .messages import say_all
from .show_tables import show_tables


def run(options: argparse.Namespace) -> int:
    """Run `vtab-peft agreement`: print the tables; with `--output` also write them and the figure.

    Raises:
        ValueError: no or several leaderboards have the methods, or predictions are missing.
    """
    stored, problems = Store(options.results).load_runs()
    say_all(problems)
    boards = [(leaderboard(identity, own), own) for identity, own in by_leaderboard(stored)]
    entry, runs, rows = find_leaderboard(boards, options.methods, options.board, options.results)
    found = agreement(entry, runs, rows or entry.rows)
    page = to_text(found, entry, by_task=True, style="markdown") + "\n"
    text = to_text(found, entry, options.by_task)
    show_tables("agreement", text, options.to, to_csv(found), page, lambda: draw(found, entry))
    return 1 if problems else 0
