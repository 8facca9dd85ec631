"""Few-shot tables: the mean accuracy of each method against the number of shots, from the leaderboards of the draws.

A number is the mean over the tasks that all draws have, over training seeds and over draws.  Its interval is Student's
over the draws.  Methods share the draws, so a difference of two is taken on each draw, and its interval is often much
smaller.  Ranks stay on the leaderboard of each draw.
"""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from ...datasets.few_shots import split_suite
from ..escaping import csv_text, markdown, one_line
from .leaderboard_id import LeaderboardId
from .leaderboards import Leaderboard, method_labels
from .markup import markdown_table
from .stats import LEAST_SEEDS, Interval, levels, over_seeds
from .tables import DASH, TERMINAL_WIDTH, percent, signed
from .text_table import text_table
from .wording import pluralize


@dataclass(frozen=True)
class Point:
    """A method at a number of shots; accuracies are in [0, 1]."""

    mean: float
    interval: Interval | None
    """None with fewer than three draws."""
    by_task: tuple[float, ...]
    """Mean of each task over draws."""
    by_draw: tuple[float, ...]
    """Mean of each draw over tasks, in the order that all methods share."""


@dataclass(frozen=True)
class FewShotTable:
    """All draws of the same tasks, backbone and recipe."""

    id: LeaderboardId
    """The identity of the draws' leaderboards, with the suite of the whole tasks."""
    tasks: tuple[str, ...]
    draws: dict[int, int]
    """Shots, ascending -> number of draws."""
    seeds: int
    """Fewest training seeds of a method on a draw."""
    epochs: str
    """`Leaderboard.epochs` of all rows."""
    rows: tuple[tuple[str, str, dict[int, Point]], ...]
    """Label, spec, and shots -> accuracy; without the shots of which a draw or a task is missing.  Best last point
    first."""

    @property
    def curves(self) -> list[tuple[str, dict[int, Point]]]:
        """Label and points of the rows with at least two numbers of shots."""
        return [(label, points) for label, _, points in self.rows if len(points) > 1]

    @property
    def heading(self) -> str:
        """The content and the conditions of the table, as plain text."""
        low, high = min(self.draws.values()), max(self.draws.values())
        draws = pluralize(low, "draw") if low == high else f"{low} to {high} draws"
        seeds = pluralize(self.seeds, "training seed")
        facts = f"{self.id.title} · {self.epochs} · {draws} of the images, {seeds} each"
        return one_line(f"{facts} · mean over {', '.join(self.tasks)}")


def differences(table: FewShotTable) -> list[dict[int, Interval]]:
    """Return for each row: shots -> its difference from the first row, paired by draw, where both have an interval.

    Empty for the first row.
    """
    (_, _, first), *others = table.rows
    return [
        {},
        *(
            {
                shots: over_seeds([a - b for a, b in zip(point.by_draw, first[shots].by_draw, strict=True)])
                for shots, point in points.items()
                if point.interval and shots in first
            }
            for _, _, points in others
        ),
    ]


NOTE = (
    f"Accuracy in percent ± half its 95 % interval over draws (Student, from {LEAST_SEEDS} draws). {DASH}: not run, "
    "failed, or a draw or task is missing. Methods share the draws: overlapping intervals do not say that they are "
    "equal."
)
DIFFERENCES = (
    "Difference from {first} in points ± half its 95 % interval, paired by draw, so that luck with the images does "
    "not count. Not corrected for the number of comparisons."
)


def few_shot_tables(leaderboards: Sequence[Leaderboard]) -> list[FewShotTable]:
    """Return a table for each suite, backbone and recipe with few-shot draws that have a task in common."""
    groups: dict[LeaderboardId, dict[int, list[Leaderboard]]] = defaultdict(lambda: defaultdict(list))
    for entry in leaderboards:
        _, draw = split_suite(entry.id.suite)
        if draw is not None:
            groups[whole(entry.id)][draw.shots].append(entry)
    tables = [_table(identity, {shots: parts[shots] for shots in sorted(parts)}) for identity, parts in groups.items()]
    return [table for table in tables if table.tasks]


def ambiguous(leaderboards: Sequence[Leaderboard]) -> list[str]:
    """Report tasks that a draw has with several data hashes or versions; the tables leave them out."""
    return [
        f"leaderboard {entry.id.slug}: {one_line(', '.join(sorted(names)))} has several data hashes or versions, so "
        "no few-shot table shows it: delete the outdated runs"
        for entry in leaderboards
        if is_draw(entry) and (names := _repeated(entry))
    ]


def _repeated(entry: Leaderboard) -> set[str]:
    """Return the names that several tasks of a leaderboard have."""
    return {name for name, number in Counter(task.name for task in entry.tasks).items() if number > 1}


def is_draw(entry: Leaderboard) -> bool:
    """Return True for the leaderboard of a few-shot draw."""
    return whole(entry.id) != entry.id


def whole(identity: LeaderboardId) -> LeaderboardId:
    """Return the identity of the leaderboard of the whole tasks."""
    return replace(identity, suite=split_suite(identity.suite)[0])


def _table(identity: LeaderboardId, parts: dict[int, list[Leaderboard]]) -> FewShotTable:
    entries = [entry for own in parts.values() for entry in own]
    common = set.intersection(*({task.name for task in entry.tasks} - _repeated(entry) for entry in entries))
    tasks = tuple(dict.fromkeys(task.name for task in entries[0].tasks if task.name in common))
    known = {row["identity"]: row for entry in entries for row in entry.rows}
    found = {row_id: _points(row_id, parts, tasks) for row_id in known}
    labels = dict(zip(known, method_labels(list(known.values())), strict=True))
    most = max(parts)
    places = levels([points[most].mean if most in points else -1.0 for points in found.values()])
    by_place = sorted(zip(-places, found, strict=True), key=lambda pair: (pair[0], labels[pair[1]]))
    rows = [(labels[row_id], one_line(known[row_id]["spec"]), found[row_id]) for _, row_id in by_place]
    seeds = min(row["seeds"] for entry in entries for row in entry.rows)
    every = replace(entries[0], rows=tuple(row | {"label": labels[row_id]} for row_id, row in known.items()))
    draws = {shots: len(own) for shots, own in parts.items()}
    return FewShotTable(identity, tasks, draws, seeds, every.epochs, tuple(rows))


def _points(row_id: Any, parts: dict[int, list[Leaderboard]], tasks: Sequence[str]) -> dict[int, Point]:
    """Return shots -> accuracy of one row, where no draw and no task is missing."""
    points = {}
    for shots, entries in parts.items():
        by_draw = [accuracies for entry in entries if (accuracies := _accuracies(entry, row_id, tasks))]
        if tasks and len(by_draw) == len(entries):
            means = [fmean(accuracies) for accuracies in by_draw]
            interval = over_seeds(means) if len(means) >= LEAST_SEEDS else None
            points[shots] = Point(fmean(means), interval, tuple(map(fmean, zip(*by_draw, strict=True))), tuple(means))
    return points


def _accuracies(entry: Leaderboard, row_id: Any, tasks: Sequence[str]) -> list[float] | None:
    """Return the accuracy of one row on each task of a draw; None if one is missing."""
    row = next((row for row in entry.rows if row["identity"] == row_id), None)
    labels = {task.name: task.label for task in entry.tasks}
    values = [row[f"accuracy_{labels[task]}"] for task in tasks] if row else []
    return values if values and None not in values else None


def to_csv(table: FewShotTable) -> str:
    """Return `few_shots.csv`: one line per method and number of shots, in percent."""
    head = ["method", "spec", "shots", "draws", "accuracy", "low", "high"]
    head += ["difference", "difference_low", "difference_high"]
    head += [f"accuracy_{task}" for task in table.tasks]
    lines = [
        [
            *(label, spec, shots, table.draws[shots], percent(point.mean, 2)),
            *_numbers(point.interval)[1:],
            *_numbers(found.get(shots)),
            *(percent(value, 2) for value in point.by_task),
        ]
        for (label, spec, points), found in zip(table.rows, differences(table), strict=True)
        for shots, point in points.items()
    ]
    return csv_text([head, *([str(value) for value in line] for line in lines)])


def _numbers(found: Interval | None) -> list[str]:
    """Return estimate, low and high in percent; empty cells without an interval."""
    return [percent(value, 2) for value in (found.estimate, found.low, found.high)] if found else [""] * 3


def to_markdown(table: FewShotTable) -> str:
    """Return `table.md`."""
    lines = [f"**{markdown(table.heading)}**"]
    for (head, *rows), note in _parts(table):
        body = [[markdown(cell) for cell in row] for row in rows]
        lines += ["", markdown_table(head, body, "l" + "r" * len(table.draws)), "", note]
    return "\n".join([*lines, ""])


def to_terminal(tables: Sequence[FewShotTable], shown: Collection[LeaderboardId]) -> list[str]:
    """Return plain tables for the terminal, those with a draw whose leaderboard is in `shown`."""
    wanted = {whole(identity) for identity in shown}
    return [_plain(table) for table in tables if table.id in wanted]


def _plain(table: FewShotTable) -> str:
    lines = [textwrap.fill(table.heading, TERMINAL_WIDTH, break_on_hyphens=False)]
    for (head, *rows), note in _parts(table):
        lines.append(text_table(head, rows, "l" + "r" * len(table.draws)))
        lines.append(textwrap.fill(note, TERMINAL_WIDTH, break_on_hyphens=False))
    return "\n\n".join(lines) + "\n"


def texts(table: FewShotTable) -> dict[str, bytes]:
    """Return file name -> content of the table as CSV and Markdown."""
    return {"few_shots.csv": to_csv(table).encode(), "table.md": to_markdown(table).encode()}


def index(tables: Sequence[FewShotTable]) -> str:
    """Return the section of the report's README; empty without few-shot draws."""
    lines = ["", "# Few shots", "", "Accuracy against training images per class; docs/few-shot.md explains the draws."]
    for table in tables:
        folder = f"few_shots/{table.id.slug}"
        figure = [f"![accuracy against shots]({folder}/few_shots.svg)", ""] if table.curves else []
        lines += ["", to_markdown(table), *figure, f"[CSV]({folder}/few_shots.csv)"]
    return "\n".join(lines) + "\n" if tables else ""


def _parts(table: FewShotTable) -> list[tuple[list[list[str]], str]]:
    """Return the cells of accuracies, those of differences if there are any, and what is said below each."""
    head = ["method", *(f"{shots} shot{'s' if shots > 1 else ''}" for shots in table.draws)]
    cells = [[label, *(_cell(points.get(shots)) for shots in table.draws)] for label, _, points in table.rows]
    parts = [([head, *cells], NOTE)]
    if any(found := differences(table)):
        (first, _, _), *others = table.rows
        rows = zip(others, found[1:], strict=True)
        cells = [[label, *(_difference(own.get(shots)) for shots in table.draws)] for (label, _, _), own in rows]
        parts.append(([head, *cells], DIFFERENCES.format(first=first)))
    return parts


def _difference(found: Interval | None) -> str:
    return DASH if found is None else f"{signed(100 * found.estimate)} ± {percent(found.high - found.estimate)}"


def _cell(point: Point | None) -> str:
    if point is None:
        return DASH
    half = point.interval and f" ± {percent(point.interval.high - point.mean)}"
    return percent(point.mean) + (half or "")
