"""The command `ensemble`: average the logits of several models, chosen on val and tested once."""

import argparse
from collections import defaultdict

from ..reporting.compare import find_leaderboard
from ..reporting.ensembles import ensembles
from ..reporting.ensembles_text import to_csv, to_text
from ..reporting.figures.ensembles import draw
from ..reporting.leaderboard_id import LeaderboardId
from ..reporting.leaderboards import leaderboard
from ..storage.schema import Run
from ..storage.store import Store
from .messages import say_all
from .show_tables import show_tables


def run(options: argparse.Namespace) -> int:
    """Run `vtab-peft ensemble`: print the tables; with `--output` also write them and the figure.

    Raises:
        ValueError: no or several leaderboards have the methods, or runs, logits or members are missing.
    """
    stored, problems = Store(options.results).load_runs()
    say_all(problems)
    groups: defaultdict[LeaderboardId, list[Run]] = defaultdict(list)
    for one in stored:
        if one.spec.split == "val":
            groups[LeaderboardId.of(one)].append(one)
    if not groups:
        raise ValueError(
            f"no validation runs in {options.results}, which choose the members: use `vtab-peft run --keep-logits` "
            "twice, with --split val and with --split test"
        )
    boards = [(leaderboard(identity, own), own) for identity, own in groups.items()]
    entry, val_runs, rows = find_leaderboard(boards, options.methods, options.board, options.results)
    rows = rows or entry.rows
    if options.size and options.size > len(rows):
        raise ValueError(f"--size {options.size}: there are {len(rows)} methods, and each is a member at most once")
    found = ensembles(entry, val_runs, stored, rows, options.size)
    page = to_text(found, entry, style="markdown") + "\n"
    show_tables("ensemble", to_text(found, entry), options.to, to_csv(found), page, lambda: draw(found, entry))
    return 1 if problems else 0
