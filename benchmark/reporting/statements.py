"""What a board supports, in words: `significance.md`, and a few lines below the table in the terminal."""

import textwrap
from collections.abc import Mapping, Sequence

from .leaderboards import Leaderboard
from .markup import markdown
from .significance import Significance
from .stats import ALPHA, LEAST_SEEDS, Interval, PairOverTasks, Ranking
from .tables import DASH, TERMINAL_WIDTH, heading, percent
from .wording import counted, form


def summary(found: Significance) -> str:
    """At most three statements for the terminal, each wrapped."""
    lines = [_ranks(found.ranking), _pairs(found.pairs), _seeds(found)]
    return "".join(
        f"{line}\n" for text in lines for line in textwrap.wrap(text, TERMINAL_WIDTH, subsequent_indent="  ")
    )


def to_page(board: Leaderboard, found: Significance) -> str:
    """`significance.md`."""
    sections = [
        [f"# {markdown(board.board.title)}: what the differences mean", markdown(heading(board)[1]) + "."],
        ["## Ranks over tasks", markdown(_ranks(found.ranking)), *_rank_table(found.ranking)],
        ["## Pairs over tasks", markdown(_pairs(found.pairs)), *_pair_table(found.pairs)],
        [
            "## Wins, ties, losses",
            "Tasks on which the row's method is better, as good, worse than the column's.",
            _matrix(board, found),
        ],
        ["## Intervals over seeds", markdown(_seeds(found)), *_interval_table(board, found.intervals)],
        ["## Intervals over images", markdown(_images(found)), *_interval_table(board, found.image_intervals)],
    ]
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _ranks(found: Ranking | str) -> str:
    if isinstance(found, str):
        return f"Ranks: nothing is concluded: {found}."
    verdict = "the methods differ" if found.friedman_p < ALPHA else "no difference is shown"
    apart = sum(rank - found.average_ranks[0] > found.critical_difference for rank in found.average_ranks)
    return (
        f"Ranks: {verdict} (Friedman, Iman and Davenport's F: {_p(found.friedman_p)}). {found.methods[0]} has the best "
        f"average rank, {found.average_ranks[0]:.2f}; {apart} of the other {len(found.methods) - 1} "
        f"{form(apart, 'is', 'are')} worse by more than Nemenyi's critical difference, {found.critical_difference:.2f}."
    )


def _pairs(found: Sequence[PairOverTasks] | str) -> str:
    if isinstance(found, str):
        return f"Pairs: nothing is concluded: {found}."
    different = sum(pair.p_holm < ALPHA for pair in found)
    test = "Wilcoxon's signed-rank test over tasks, Holm's correction"
    return f"Pairs: {different} of {len(found)} {form(different, 'differs', 'differ')} at {ALPHA} ({test})."


def _seeds(found: Significance) -> str:
    """How many cells have an interval."""
    known = sum(isinstance(interval, Interval) for interval in found.intervals.values())
    cells = len(found.intervals)
    rest = f"; with fewer than {LEAST_SEEDS} seeds: {cells - known}" if known < cells else ""
    return f"Seeds: with a 95 % interval over seeds (Student's t): {known} of {counted(cells, 'result')}{rest}."


def _images(found: Significance) -> str:
    """How many of the other cells have one."""
    cells = found.image_intervals.values()
    if not cells:
        return f"Images: every result has the {LEAST_SEEDS} seeds that an interval over seeds needs."
    known = sum(isinstance(interval, Interval) for interval in cells)
    reasons = sorted({interval for interval in cells if isinstance(interval, str)})
    rest = f"; not the others: {'; '.join(reasons)}" if reasons else ""
    return (
        f"Images: of the {counted(len(cells), 'result')} with fewer than {LEAST_SEEDS} seeds, {known} "
        f"{form(known, 'has', 'have')} a 95 % interval of the first seed over test images (Wilson){rest}. It says how "
        "far another test set may move the number, and nothing of other seeds."
    )


def _rank_table(found: Ranking | str) -> list[str]:
    if isinstance(found, str):
        return []
    ranks = zip(found.methods, found.average_ranks, strict=True)
    return [_table(("method", "average rank"), [(markdown(name), f"{rank:.2f}") for name, rank in ranks])]


def _pair_table(found: Sequence[PairOverTasks] | str) -> list[str]:
    if isinstance(found, str):
        return []
    rows = [
        (markdown(pair.a), markdown(pair.b), f"{pair.wins}/{pair.ties}/{pair.losses}", _p(pair.p), _p(pair.p_holm))
        for pair in sorted(found, key=lambda pair: pair.p_holm)
    ]
    return [_table(("A", "B", "A wins/ties/loses", "uncorrected", "Holm"), rows)]


def _matrix(board: Leaderboard, found: Significance) -> str:
    names = [row["label"] for row in board.rows]
    cells = {pair: "/".join(map(str, counts)) for pair, counts in found.wins.items()}
    rows = [(f"{i}. {markdown(a)}", *(cells.get((a, b), DASH) for b in names)) for i, a in enumerate(names, start=1)]
    return _table(("method", *(str(i) for i in range(1, len(names) + 1))), rows)


def _interval_table(board: Leaderboard, found: Mapping[tuple[str, str], Interval | str]) -> list[str]:
    """Rows that have an interval on some task."""
    rows = []
    for row in board.rows:
        cells = [found.get((row["label"], task.label)) for task in board.tasks]
        if any(isinstance(cell, Interval) for cell in cells):
            rows.append((markdown(row["label"]), *map(_interval, cells)))
    return [_table(("method", *(markdown(task.label) for task in board.tasks)), rows)] if rows else []


def _interval(found: Interval | str | None) -> str:
    if not isinstance(found, Interval):
        return DASH
    return f"{percent(found.estimate)} ({percent(found.low)} to {percent(found.high)})"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.2g}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
