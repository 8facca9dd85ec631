"""The statistical conclusions of a leaderboard as text: `significance.md` and a summary for the terminal."""

import textwrap
from collections.abc import Mapping, Sequence

from ..escaping import markdown
from .differences import Difference, cells
from .leaderboards import Leaderboard
from .markup import markdown_table
from .significance import Significance
from .stats import ALPHA, LEAST_SEEDS, TIE, Interval, PairOverTasks, Ranking
from .tables import DASH, TERMINAL_WIDTH, cut_names, heading, percent
from .text_table import text_table
from .wording import pluralize

BEST = (
    "Differences from the first row in points, over the seeds that both have, with 95 % intervals (Student's t) and "
    "McNemar's p over images. They hold for this task, and are not corrected for the number of rows or for the choice "
    "of the first."
)
HEADS = ("method", "difference", "seeds", "over seeds", "over seeds\nand images", "McNemar's p\nby seed")
LONGEST = 30
"""Characters of a method's name in the terminal."""
COLUMNS = 10
"""Columns of wins, ties and losses (our choice): with 100 no row can be followed."""


def summary(significance: Significance) -> str:
    """Return statements for the terminal, wrapped: ranks, pairs and seeds, or differences from the best and seeds."""
    if found := significance.from_best:
        names = cut_names(list(found), LONGEST)
        rows = [[name, *shown] for name, shown in zip(names, map(_difference, found.values()), strict=True)]
        table = text_table(HEADS, rows, "l" + "r" * (len(HEADS) - 1))
        below = map(_filled, [*_missing(found), _seeds(significance)])
        return "\n".join([_filled(BEST), "", table, "", *below, ""])
    statements = [_ranks(significance.ranking), _pairs(significance.pairs), _seeds(significance)]
    return "".join(f"{_filled(text)}\n" for text in statements)


def to_page(leaderboard: Leaderboard, significance: Significance) -> str:
    """Return `significance.md`."""
    blocks = [
        f"# {markdown(leaderboard.id.title)}: significance of differences",
        markdown(f"{leaderboard.epochs} · {heading(leaderboard)[1]}") + ".",
        *(_differences(significance.from_best) if significance.from_best else _over_tasks(significance)),
        "## Wins, ties, losses",
        _columns(len(leaderboard.rows)),
        _win_matrix(leaderboard, significance),
        "## Intervals over seeds",
        markdown(_seeds(significance)),
        _interval_table(leaderboard, significance.intervals),
        "## Intervals over images",
        markdown(_images(significance)),
        _interval_table(leaderboard, significance.image_intervals),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _over_tasks(significance: Significance) -> list[str]:
    return [
        "## Ranks over tasks",
        markdown(_ranks(significance.ranking)),
        _rank_table(significance.ranking),
        "## Pairs over tasks",
        markdown(_pairs(significance.pairs)),
        _pair_table(significance.pairs),
    ]


def _differences(found: Mapping[str, Difference]) -> list[str]:
    rows = [(markdown(label), *_difference(one)) for label, one in found.items()]
    table = markdown_table([head.replace("\n", " ") for head in HEADS], rows, "l" + "r" * (len(HEADS) - 1))
    return ["## Differences from the best", BEST, table, *_missing(found)]


def _difference(one: Difference) -> list[str]:
    difference, *others = cells(one)
    return [difference, str(one.seeds), *others]


def _missing(found: Mapping[str, Difference]) -> list[str]:
    """Say which intervals are missing, and what to do."""
    few = sum(one.seeds < LEAST_SEEDS for one in found.values())
    unknown = sum(one.seeds >= LEAST_SEEDS and one.over_images is None for one in found.values())
    seeds = f"No interval over seeds for {few} of {len(found)}: it needs {LEAST_SEEDS} seeds that both rows have. "
    return [
        *([seeds + "Repeat the run command with more, such as --seeds 0 1 2; finished runs are kept."] if few else []),
        *([f"No interval over images for {unknown} of {len(found)}: `vtab-peft compare` says why."] if unknown else []),
    ]


def _filled(text: str) -> str:
    return textwrap.fill(text, TERMINAL_WIDTH, subsequent_indent="  ")


def _ranks(ranking: Ranking | str) -> str:
    if isinstance(ranking, str):
        return f"Ranks: no conclusion: {ranking}."
    verdict = "the methods differ" if ranking.friedman_p < ALPHA else "no difference is shown"
    best = ranking.average_ranks[0]
    worse = sum(rank - best > ranking.critical_difference for rank in ranking.average_ranks)
    first, *tied = [
        name for name, rank in zip(ranking.methods, ranking.average_ranks, strict=True) if rank - best < TIE
    ]
    leads = f"{', '.join([first, *tied[:-1]])} and {tied[-1]} share" if tied else f"{first} has"
    return (
        f"Ranks: {verdict} (Friedman's test, Iman and Davenport's F: {_p(ranking.friedman_p)}). "
        f"{leads} the best average rank, {best:.2f}. Worse by more than Nemenyi's critical "
        f"difference, {ranking.critical_difference:.2f}: {worse} of the other {len(ranking.methods) - 1 - len(tied)}."
    )


def _pairs(pairs: Sequence[PairOverTasks] | str) -> str:
    if isinstance(pairs, str):
        return f"Pairs: no conclusion: {pairs}."
    different = sum(pair.p_holm < ALPHA for pair in pairs)
    return (
        f"Pairs: significant at {ALPHA}: {different} of {len(pairs)} "
        "(Wilcoxon's signed-rank test over tasks, Holm's correction)."
    )


def _seeds(significance: Significance) -> str:
    results = significance.intervals.values()
    known = sum(isinstance(interval, Interval) for interval in results)
    rest = f"; with fewer than {LEAST_SEEDS} seeds: {len(results) - known}" if known < len(results) else ""
    return (
        f"Seeds: with a 95 % interval over seeds (Student's t): {known} of {pluralize(len(results), 'result')}{rest}."
    )


def _images(significance: Significance) -> str:
    results = significance.image_intervals.values()
    if not results:
        return f"Images: every result has the {LEAST_SEEDS} seeds that an interval over seeds needs."
    known = sum(isinstance(interval, Interval) for interval in results)
    reasons = sorted({interval for interval in results if isinstance(interval, str)})
    rest = f"; reasons for the others: {'; '.join(reasons)}" if reasons else ""
    return (
        f"Images: with a 95 % interval of the first seed over test images (Wilson): {known} of "
        f"{pluralize(len(results), 'result')} with fewer than {LEAST_SEEDS} seeds{rest}. It covers the variation over "
        "test images, not over seeds."
    )


def _rank_table(ranking: Ranking | str) -> str:
    if isinstance(ranking, str):
        return ""
    rows = [(markdown(m), f"{rank:.2f}") for m, rank in zip(ranking.methods, ranking.average_ranks, strict=True)]
    return markdown_table(("method", "average rank"), rows, "lr")


def _pair_table(pairs: Sequence[PairOverTasks] | str) -> str:
    if isinstance(pairs, str):
        return ""
    rows = [
        (markdown(pair.a), markdown(pair.b), f"{pair.wins}/{pair.ties}/{pair.losses}", _p(pair.p), _p(pair.p_holm))
        for pair in sorted(pairs, key=lambda pair: pair.p_holm)
    ]
    return markdown_table(("A", "B", "A wins/ties/loses", "uncorrected", "Holm"), rows, "lrrrr")


def _columns(rows: int) -> str:
    """Say what the columns of `_win_matrix` are."""
    text = "Number of tasks on which the row's method is better than, equal to and worse than the column's."
    if rows <= COLUMNS:
        return text
    return f"{text} Columns are the first {COLUMNS} methods; `vtab-peft compare` has every other pair."


def _win_matrix(leaderboard: Leaderboard, significance: Significance) -> str:
    names = [row["label"] for row in leaderboard.rows]
    columns = names[:COLUMNS]
    counts = {pair: "/".join(map(str, wins)) for pair, wins in significance.wins.items()}
    rows = [(f"{i}. {markdown(a)}", *(counts.get((a, b), DASH) for b in columns)) for i, a in enumerate(names, start=1)]
    return markdown_table(("method", *map(str, range(1, len(columns) + 1))), rows, "l" + "r" * len(columns))


def _interval_table(leaderboard: Leaderboard, intervals: Mapping[tuple[str, str], Interval | str]) -> str:
    """Return the rows that have an interval on some task; empty if no row has."""
    tasks = [task.label for task in leaderboard.tasks]
    rows = []
    for label in (row["label"] for row in leaderboard.rows):
        cells = [_interval(intervals.get((label, task))) for task in tasks]
        if any(cell != DASH for cell in cells):
            rows.append((markdown(label), *cells))
    return markdown_table(("method", *map(markdown, tasks)), rows, "l" + "r" * len(tasks)) if rows else ""


def _interval(interval: Interval | str | None) -> str:
    if not isinstance(interval, Interval):
        return DASH
    return f"{percent(interval.estimate)} ({percent(interval.low)} to {percent(interval.high)})"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.2g}"
