"""`vtab-peft compare A B`: one pair of a board's rows, on every task over seeds and images, and over all tasks."""

import argparse
import sys
import zipfile
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from ..storage.store import Store
from .boards import Board, boards
from .leaderboards import Leaderboard, TaskColumn, leaderboard
from .significance import by_seed
from .stats import (
    ALPHA,
    LEAST_SEEDS,
    InsufficientData,
    Interval,
    compare_over_tasks,
    mcnemar,
    over_seeds,
    over_seeds_and_images,
)
from .tables import DASH, heading, percent

Row = dict[str, Any]


def run(options: argparse.Namespace) -> int:
    """The verb.

    Raises:
        ValueError: A or B is on no board, both are the same row, or several boards have both.
    """
    complaints: list[str] = []
    found = [(leaderboard(board, runs), runs) for board, runs in boards(Store(options.results).frame(complaints))]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    board, runs = _board(found, options.a, options.b, options.board, options.results)
    print(compare(board, runs, _row(board, options.a), _row(board, options.b)))
    return 1 if complaints else 0


def compare(board: Leaderboard, runs: pd.DataFrame, a: Row, b: Row) -> str:
    """What the terminal shows for two rows of a board."""
    found = by_seed(board, runs)
    lines, refusals = [], []
    for task in board.tasks:
        of_a, of_b = (found.get((row["label"], task.label), {}) for row in (a, b))
        lines.append([task.label, *_over_seeds(of_a, of_b)])
        try:
            lines[-1] += _over_both(*(_correct(board.board, runs, row, task) for row in (a, b)))
        except InsufficientData as refusal:
            lines[-1] += [DASH] * 2
            refusals.append(f"{task.label}: {refusal}.")
    if len(board.tasks) > 1:
        lines.append([f"mean of {len(board.tasks)}", *_over_seeds(*(_means(board, found, row) for row in (a, b)))])
    heads = (
        "task",
        "A",
        "B",
        "A - B",
        "95 %\nover seeds",
        "95 % over seeds\nand images",
        "McNemar's p\nby seed",
    )
    table = tabulate(lines, heads, tablefmt="simple", disable_numparse=True, colalign=("left", *["right"] * 6))
    notes = [
        "A, B, A - B: means over the seeds that both have.  Over seeds: Student's t of their differences.",
        "Over seeds and images: Student's half-widths over either, added as squares.",
        "McNemar: images alone, uncorrected.",
        *refusals,
        _over_tasks(board, a, b),
    ]
    return "\n".join([*heading(board), "", f"A = {a['label']}, B = {b['label']}", "", table, "", *notes])


def _means(board: Leaderboard, found: Mapping[tuple[str, str], Mapping[int, float]], row: Row) -> dict[int, float]:
    """Seed -> mean over the board's tasks, for the seeds that all of them have."""
    parts = [found.get((row["label"], task.label), {}) for task in board.tasks]
    return {seed: fmean(part[seed] for part in parts) for seed in set.intersection(*map(set, parts))}


def _over_seeds(a: Mapping[int, float], b: Mapping[int, float]) -> list[str]:
    """A, B, A - B and its interval over the seeds that both have; if there are none, A and B over what each has."""
    shared = sorted(a.keys() & b.keys())
    means = [fmean(part[seed] for seed in shared or part) if part else None for part in (a, b)]
    shown = [DASH if mean is None else percent(mean) for mean in means]
    if not shared:
        return [*shown, DASH, DASH]
    differences = [a[seed] - b[seed] for seed in shared]
    ends = _ends(over_seeds(differences)) if len(differences) >= LEAST_SEEDS else DASH
    return [*shown, f"{100 * fmean(differences):+.1f}", ends]


def _over_both(a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> list[str]:
    """The last two cells of a task's line, from what each has by seed: [images] bool, correct or not."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise InsufficientData("the two have no seed in common")
    p_values = ", ".join(f"{mcnemar(a[seed], b[seed]):.2g}" for seed in seeds)
    if len({len(bits) for seed in seeds for bits in (a[seed], b[seed])}) > 1:
        raise InsufficientData("their runs were tested on different numbers of images")
    in_a, in_b = (np.stack([bits[seed] for seed in seeds]) for bits in (a, b))
    try:
        found = over_seeds_and_images(in_a, in_b)
    except InsufficientData as refusal:
        raise InsufficientData(f"{refusal} (McNemar's p by seed: {p_values})") from None
    return [_ends(found), p_values]


def _ends(found: Interval) -> str:
    return f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"


def _over_tasks(board: Leaderboard, a: Row, b: Row) -> str:
    scores = {row["label"]: [row[f"accuracy_{task.label}"] for task in board.tasks] for row in (a, b)}
    try:
        (pair,) = compare_over_tasks(scores)
    except InsufficientData as refusal:
        return f"Over tasks: nothing is concluded: {refusal}."
    verdict = "they differ" if pair.p < ALPHA else "no difference is shown"
    return (
        f"Over tasks: A is better on {pair.wins}, equal on {pair.ties}, worse on {pair.losses}; Wilcoxon's signed-rank "
        f"test: p = {pair.p:.2g}, {verdict} at {ALPHA}.\nThat p is for a pair chosen beforehand; a pair picked from "
        "the table needs the correction in significance.md."
    )


def _correct(board: Board, runs: pd.DataFrame, row: Row, task: TaskColumn) -> dict[int, np.ndarray]:
    """Seed -> [images] bool, whether each test image was classified correctly.

    Raises:
        InsufficientData: nothing was run, a seed has two results, or the predictions lack what is needed.
    """
    bits: dict[int, np.ndarray] = {}
    for run in runs.to_dict("records"):
        own = board.row_of({str(name): value for name, value in run.items()}) == row["identity"]
        if own and (run["task"], run["task_version"], run["data"]) == (task.name, task.version, task.data):
            if run["seed"] in bits:
                raise InsufficientData(
                    f"{row['label']} has two results with seed {run['seed']}; delete the outdated one"
                )
            bits[run["seed"]] = _stored(Path(run["path"]).with_suffix(".npz"), run["accuracy"])
    if not bits:
        raise InsufficientData(f"{row['label']} was not run")
    return bits


def _stored(path: Path, accuracy: float) -> np.ndarray:
    try:
        with np.load(path) as archive:
            bits = archive["correct"]
    except FileNotFoundError:
        raise InsufficientData(
            f"{path.name} is not beside its JSON (predictions are not in git); run with --again"
        ) from None
    except KeyError:
        raise InsufficientData(f"{path.name} does not say which images are correct; run with --again") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InsufficientData(f"{path.name} cannot be read ({error}); run with --again") from None
    if abs(bits.mean() - accuracy) > 1e-6:
        raise InsufficientData(f"{path.name} contradicts its JSON's accuracy; run with --again")
    return bits


def _board(
    found: Sequence[tuple[Leaderboard, pd.DataFrame]], a: str, b: str, part: str, root: Path
) -> tuple[Leaderboard, pd.DataFrame]:
    """The one board that has both rows."""
    if not found:
        raise ValueError(f"there are no test results in {root}: use `vtab-peft run` first, or give another --results")
    named = [entry for entry in found if part in entry[0].board.slug]
    if not named:
        slugs = ", ".join(entry[0].board.slug for entry in found)
        raise ValueError(f"no board's name holds {part!r}; boards: {slugs}")
    for name in (a, b):
        if not any(_matches(board, name) for board, _ in named):
            known = sorted({text for board, _ in named for row in board.rows for text in (row["spec"], row["label"])})
            near = get_close_matches(name, known, cutoff=0.4) or known[:5]
            raise ValueError(f"no row is called {name!r}; near: {', '.join(near)}")
    fits = [entry for entry in named if _matches(entry[0], a) and _matches(entry[0], b)]
    if len(fits) != 1:
        slugs = ", ".join(entry[0].board.slug for entry in fits or named)
        raise ValueError(
            f"{len(fits) or 'no'} boards have both {a!r} and {b!r}; "
            + (f"choose with --board: {slugs}" if fits else f"searched: {slugs}")
        )
    if _row(fits[0][0], a) is _row(fits[0][0], b):
        raise ValueError(f"{a!r} and {b!r} are the same row; name two")
    return fits[0]


def _matches(board: Leaderboard, name: str) -> list[Row]:
    """Rows with that label; else those with that spec."""
    labelled = [row for row in board.rows if row["label"] == name]
    return labelled or [row for row in board.rows if row["spec"] == name]


def _row(board: Leaderboard, name: str) -> Row:
    rows = _matches(board, name)
    if len(rows) > 1:
        raise ValueError(f"{name!r} is several rows; name one: {', '.join(row['label'] for row in rows)}")
    return rows[0]
