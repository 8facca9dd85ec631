"""The report: everything people read, as a pure function of the stored runs.

    <out>/README.md                       index of the boards
    <out>/boards/<slug>/leaderboard.csv   table.md  table.tex  significance.md
                          accuracy_vs_params.svg/.png  tasks.svg/.png
                          ranks.svg/.png, where the tasks support ranks

Rebuilding it gives the same bytes, whatever order the files are read in.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..store import Store, write_atomically
from .boards import IDENTITY, Board, Leaderboard, boards, leaderboard
from .markup import markdown, to_latex, to_markdown
from .significance import Significance, significance
from .statements import summary, to_page
from .tables import DASH, to_csv, to_terminal


@dataclass(frozen=True)
class Report:
    """What `write` wrote, and what it has to say."""

    paths: tuple[Path, ...]
    """Every file written; the index is the last."""
    boards: tuple[Leaderboard, ...]
    complaints: tuple[str, ...]
    """Damaged records, runs that contradict each other, folders that belong to no board any more."""
    text: str
    """The tables for the terminal, or why there are none."""


def write(store: Store, out: Path) -> Report:
    """Rebuild the report of a results folder in `out`.

    Raises:
        StoreError: `out` cannot be written.
    """
    complaints: list[str] = []
    frame = store.frame(complaints)
    leaderboards: list[Leaderboard] = []
    paths: list[Path] = []
    texts: list[str] = []
    for board, runs in boards(frame):
        complaints += doubles(board, runs)
        leaderboards.append(leaderboard(board, runs))
        found = significance(leaderboards[-1], runs)
        texts.append(to_terminal(leaderboards[-1]) + summary(found))
        for name, data in _files(leaderboards[-1], found).items():
            paths.append(out / "boards" / board.slug / name)
            write_atomically(paths[-1], data)
    if not leaderboards:
        return Report((), (), tuple(complaints), _nothing(store, frame))
    paths.append(out / "README.md")
    write_atomically(paths[-1], _index(leaderboards).encode())
    complaints += _orphans(out, {entry.board.slug for entry in leaderboards})
    return Report(tuple(paths), tuple(leaderboards), tuple(complaints), "\n".join(texts))


def doubles(board: Board, runs: pd.DataFrame) -> list[str]:
    """Runs of one row, task and seed with different keys: possible when code changed without a new version."""
    keys: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for run in runs.fillna("").to_dict("records"):
        cell = (*(str(run[name]) for name in IDENTITY), str(run["task"]), str(run["data"]), str(run["task_version"]))
        keys[(*cell, str(run["seed"]))].append(run["key"])
    return [
        f"board {board.slug}: {cell[1]} on {cell[-4]}, seed {cell[-1]}, has {len(found)} results with different specs "
        f"({', '.join(sorted(found))}); their mean is shown: delete the outdated JSON"
        for cell, found in sorted(keys.items())
        if len(found) > 1
    ]


def _files(entry: Leaderboard, found: Significance) -> dict[str, bytes]:
    from .figures import accuracy_vs_params, tasks  # matplotlib, only now
    from .rank_figure import ranks

    return {
        "leaderboard.csv": to_csv(entry).encode(),
        "table.md": to_markdown(entry).encode(),
        "table.tex": to_latex(entry).encode(),
        "significance.md": to_page(entry, found).encode(),
        **{f"accuracy_vs_params.{kind}": data for kind, data in accuracy_vs_params(entry).items()},
        **{f"tasks.{kind}": data for kind, data in tasks(entry).items()},
        **{f"ranks.{kind}": data for kind, data in ranks(entry, found.ranking).items()},
    }


def _index(leaderboards: list[Leaderboard]) -> str:
    """README.md of the report: a line per board, then each board's table and figure."""
    lines = [
        "# Leaderboards",
        "",
        "Rebuilt by `vtab-peft report`; edits are lost. Ranks and means never cross boards. "
        "docs/results.md says what a board and a column is.",
        "",
        "| board | tasks | methods | first |",
        "|---|--:|--:|---|",
    ]
    for entry in leaderboards:
        first = ", ".join(markdown(row["label"]) for row in entry.rows if row["rank"] == 1) or DASH
        link = f"[{markdown(entry.board.title)}](boards/{entry.board.slug}/table.md)"
        lines.append(f"| {link} | {len(entry.tasks)} | {len(entry.rows)} | {first} |")
    for entry in leaderboards:
        folder = f"boards/{entry.board.slug}"
        lines += [
            "",
            f"## {markdown(entry.board.title)}",
            "",
            to_markdown(entry),
            f"![accuracy against trainable parameters]({folder}/accuracy_vs_params.svg)",
            "",
            f"[CSV]({folder}/leaderboard.csv) · [LaTeX]({folder}/table.tex) · "
            f"[every task]({folder}/tasks.svg) · [significance]({folder}/significance.md)",
        ]
    return "\n".join(lines) + "\n"


def _orphans(out: Path, slugs: set[str]) -> list[str]:
    return [
        f"{folder} belongs to no board of these results; it was left as it is: delete it if it is out of date"
        for folder in sorted((out / "boards").iterdir())
        if folder.is_dir() and folder.name not in slugs
    ]


def _nothing(store: Store, frame: pd.DataFrame) -> str:
    if len(frame):
        return f"{store.root} holds {len(frame)} validation runs and no test run: there is nothing to rank or write\n"
    return f"no finished run in {store.root / 'runs'}: use `vtab-peft run` first; nothing was written\n"
