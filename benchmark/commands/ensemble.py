"""The command `ensemble`: average the logits of several models, chosen on val200 and tested once."""

import argparse
import sys
from collections import defaultdict

from ..reporting.compare import find_leaderboard
from ..reporting.drawing import FOR_PAPERS
from ..reporting.ensembles import Ensembles, ensembles
from ..reporting.ensembles_text import to_csv, to_text
from ..reporting.leaderboard_id import LeaderboardId
from ..reporting.leaderboards import Leaderboard, leaderboard
from ..storage.json_io import write_atomically
from ..storage.schema import Run
from ..storage.store import Store


def run(options: argparse.Namespace) -> int:
    """Run `vtab-peft ensemble`: print the tables and, with `--to`, write them with the figure; return the exit status.

    Raises:
        ValueError: no or several leaderboards have the methods, or runs or logits are missing.
    """
    stored, problems = Store(options.results).load_runs()
    for problem in problems:
        print(problem, file=sys.stderr)
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
    found = ensembles(entry, val_runs, stored, rows or entry.rows, options.size)
    print(to_text(found, entry))
    if options.to:
        for name, content in files(found, entry).items():
            write_atomically(options.to / name, content)
        print(f"tables and figure: {options.to}", file=sys.stderr)
    return 1 if problems else 0


def files(found: Ensembles, entry: Leaderboard) -> dict[str, bytes]:
    """Return the contents of the files, by name."""
    from ..reporting.figures.ensembles import draw  # matplotlib, only now
    from ..reporting.figures.style import image_files, paper_style

    with paper_style():
        drawn = image_files({"ensemble": draw(found, entry)}, FOR_PAPERS)
    tables = {"ensemble.csv": to_csv(found), "ensemble.md": to_text(found, entry, style="github") + "\n"}
    return {name: text.encode() for name, text in tables.items()} | drawn
