"""The command `compare`: compare two rows of a leaderboard, on every task and over all tasks."""

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from ...datasets.first_of import first_of
from ..storage.schema import Run
from ..storage.store import Store
from . import stats
from .differences import Row, cells, differences, mean_of
from .leaderboard_id import by_leaderboard, distinct_titles
from .leaderboards import Leaderboard, leaderboard
from .stats import ALPHA, InsufficientData, PairOverTasks
from .tables import DASH, heading, percent, wrapped
from .text_table import text_table

SHOWN = 4
"""Run IDs without predictions that are named for each task (ours)."""
LISTED = 12
"""Leaderboards that a message names (ours)."""
MISSING = (
    "Over images there is no result for these tasks, because the predictions (.npz) of these runs are not stored.\n"
    "To restore those of a run: vtab-peft rerun RUN_ID"
)


def run(options: argparse.Namespace) -> int:
    """Run `vtab-peft compare A B`; returns the exit code.

    Raises:
        ValueError: A or B is on no leaderboard, both are the same row, or several leaderboards have both.
    """
    stored, problems = Store(options.results).load_runs()
    found = [(leaderboard(id, runs), runs) for id, runs in by_leaderboard(stored)]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(compare(*find_rows(found, options.a, options.b, options.board, options.results)))
    return 1 if problems else 0


def compare(leaderboard: Leaderboard, runs: Sequence[Run], a: Row, b: Row) -> str:
    """Return the comparison of two rows of a leaderboard as text."""
    lines, reasons, missing = [], [], []
    for one in differences(leaderboard, runs, a, b):
        shown = [DASH if mean is None else percent(mean) for mean in (one.a, one.b)]
        lines.append([one.task, *shown, *cells(one)[: 2 if one.task == mean_of(leaderboard) else None]])
        if one.missing:
            missing.append(f"  {one.task}: {first_of(one.missing, SHOWN)}")
        if one.reason:
            reasons.append(f"{one.task}: {one.reason}.")
    heads = ("task", "A", "B", "A - B", "95 %\nover seeds", "95 % over seeds\nand images", "McNemar's p\nby seed")
    table = text_table(heads, lines, "l" + "r" * 6)
    notes = [
        "A, B, A - B: means over the common seeds.  Over seeds: Student's t interval of the differences.",
        "Over seeds and images: root of the sum of squares of Student's half-widths over seeds and over images.",
        "McNemar: over images, uncorrected.",
        *reasons,
        *([MISSING, *missing] if missing else []),
        _over_tasks(leaderboard, a, b),
    ]
    names = f"A = {a['label']}, B = {b['label']}"
    return "\n".join([*wrapped(heading(leaderboard)), "", names, "", table, "", *wrapped(notes)])


def over_tasks(leaderboard: Leaderboard, a: Row, b: Row) -> PairOverTasks:
    """Compare two rows over tasks.

    Raises:
        InsufficientData: tasks are missing, or too few for a conclusion.
    """
    scores = {row["label"]: [row[f"accuracy_{task.label}"] for task in leaderboard.tasks] for row in (a, b)}
    (pair,) = stats.compare_over_tasks(scores)
    return pair


def _over_tasks(leaderboard: Leaderboard, a: Row, b: Row) -> str:
    try:
        pair = over_tasks(leaderboard, a, b)
    except InsufficientData as error:
        return f"Over tasks: no conclusion: {error}."
    verdict = "they differ" if pair.p < ALPHA else "no difference is shown"
    return (
        f"Over tasks: A is better on {pair.wins}, equal on {pair.ties}, worse on {pair.losses}; Wilcoxon's signed-rank "
        f"test: p = {pair.p:.2g}, {verdict} at {ALPHA}.\nThis p is valid for a pair chosen in advance; for a pair "
        "selected from the table use the corrected p in significance.md."
    )


def find_rows(
    found: Sequence[tuple[Leaderboard, list[Run]]], a: str, b: str, name: str, root: Path | str
) -> tuple[Leaderboard, list[Run], Row, Row]:
    """Return the only leaderboard that has both rows, its runs, and the rows.

    name: part of the leaderboard's name.

    Raises:
        ValueError: a or b is on no leaderboard, both are the same row, or several leaderboards have both.
    """
    chosen, runs, (row_a, row_b) = find_leaderboard(found, (a, b), name, root)
    if row_a is row_b:
        raise ValueError(f"{a!r} and {b!r} are the same row; give two different ones")
    return chosen, runs, row_a, row_b


def find_leaderboard(
    found: Sequence[tuple[Leaderboard, list[Run]]], methods: Sequence[str], name: str, root: Path | str
) -> tuple[Leaderboard, list[Run], list[Row]]:
    """Return the only leaderboard that has all these methods, its runs, and the rows of the methods in order.

    name: part of the leaderboard's name.

    Raises:
        ValueError: a method is on no leaderboard, or no or several leaderboards have all methods.
    """
    if not found:
        raise ValueError(f"no test results in {root}: use `vtab-peft run` first, or set --results to another folder")
    entries = named(found, name)
    labels_of(methods, [leaderboard for leaderboard, _ in entries])
    fits = [entry for entry in entries if all(_matches(entry[0], method) for method in methods)]
    if len(fits) != 1:
        boards = [entry[0].id for entry in fits or entries]
        titles = zip(boards, distinct_titles(boards), strict=True)
        listed = first_of([f"{board.slug} ({title})" for board, title in titles], LISTED, "\n  ")
        raise ValueError(
            f"{len(fits) or 'no'} leaderboards have {' and '.join(map(repr, methods)) or 'runs'}; "
            + (f"choose one with --leaderboard:\n  {listed}" if fits else f"searched:\n  {listed}")
        )
    ((chosen, runs),) = fits
    return chosen, runs, [_row(chosen, method) for method in methods]


def named(found: Sequence[tuple[Leaderboard, list[Run]]], name: str) -> list[tuple[Leaderboard, list[Run]]]:
    """Return the leaderboards that have a text in their name; raise `ValueError` for none, or if it is no text."""
    if not isinstance(name, str):
        raise ValueError(f"give a leaderboard by part of its name, or leave it out, not by {name!r:.80}")
    if entries := [entry for entry in found if entry[0].id.is_named(name)]:
        return entries
    raise ValueError(f"no leaderboard name contains {name!r}; there are\n  {slugs(found)}")


def slugs(entries: Sequence[tuple[Leaderboard, list[Run]]]) -> str:
    """Return the names of leaderboards, a line each; all lines but the first are indented."""
    return first_of([entry.id.slug for entry, _ in entries], LISTED, "\n  ")


def labels_of(methods: Sequence[str], leaderboards: Sequence[Leaderboard]) -> list[str]:
    """Return the labels of the rows that have one of these labels or specs.

    Raises:
        ValueError: a name matches no row.
    """
    labels: list[str] = []
    for method in methods:
        found = [row["label"] for leaderboard in leaderboards for row in _matches(leaderboard, method)]
        if not found:
            rows = [row for leaderboard in leaderboards for row in leaderboard.rows]
            known = sorted({row[name] for row in rows for name in ("spec", "label")})
            similar = get_close_matches(method, known, cutoff=0.4) or known[:5]
            raise ValueError(f"no row is called {method!r}; similar: {', '.join(similar)}")
        labels += found
    return labels


def _matches(leaderboard: Leaderboard, name: str) -> list[Row]:
    """Return the rows with this label, or else those with this spec; spaces in a spec mean nothing."""
    labelled = [row for row in leaderboard.rows if row["label"] == name]
    return labelled or [row for row in leaderboard.rows if same_spec(row["spec"], name)]


def same_spec(a: str, b: str) -> bool:
    """Return True if two specs differ at most in spaces."""
    return a.replace(" ", "") == b.replace(" ", "")


def _row(leaderboard: Leaderboard, name: str) -> Row:
    rows = _matches(leaderboard, name)
    if len(rows) > 1:
        raise ValueError(f"{name!r} matches several rows; give one label of: {', '.join(row['label'] for row in rows)}")
    return rows[0]
