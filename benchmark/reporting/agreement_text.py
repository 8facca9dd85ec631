"""The agreement of methods as tables: text or Markdown, and CSV."""

import math
from collections.abc import Sequence

from ..escaping import csv_text
from .agreement import MEASURES, Agreement, Pair, mean_of
from .leaderboards import Leaderboard
from .stats import Interval
from .tables import DASH, fixed, heading, signed
from .text_table import text_table
from .wording import pluralize

MOST_PAIRS = 45
"""Largest number of pairs that are printed, those of ten methods (ours); the CSV file has all."""
HEADS = ("disagreement", "kappa", "errors shared", "error correlation")
NOTES = (
    "disagreement: share of images with different classes, in percent.  kappa: Cohen's, of the classes.",
    "errors shared: of the images that either gets wrong, the share that both get wrong, in percent.",
    "error correlation: Pearson's, of being wrong.  Pairs of runs have different seeds.",
    "beyond seeds: disagreement minus the mean of those between two seeds of A and between two seeds of B, in points.",
    "same seed: disagreement of runs with the same seed, which share batches and initial classifier.",
)


def to_text(found: Agreement, leaderboard: Leaderboard, by_task: bool = False, style: str = "simple") -> str:
    """Return the tables as text; `style` is that of `text_table`."""
    several = len(found.tasks) > 1
    parts = [_tables(mean_of(found.tasks) if several else found.tasks[0], found.means, style)]
    if by_task and several:
        parts += [_tables(task, [pair for pair in found.by_task if pair.task == task], style) for task in found.tasks]
    notes = [*NOTES, interval_note(found), verdict(found)]
    below = "\n".join(notes if style == "simple" else [f"- {note}" for note in notes])
    facts = f"seeds {' '.join(map(str, found.seeds))} on {pluralize(len(found.tasks), 'task')}"
    above = "\n".join([*heading(leaderboard), f"{pluralize(len(found.labels), 'method')}, {facts}"])
    return "\n\n".join([above, *parts, below])


def interval_note(found: Agreement) -> str:
    """Say what the intervals cover."""
    if len(found.seeds) > 2:
        return "Intervals: 95 %, over seeds and images (jackknife), uncorrected for the number of pairs."
    seeds = "there is only one seed, which A and B share" if len(found.seeds) == 1 else "there are only two seeds"
    return f"Intervals: 95 %, over images alone (jackknife): {seeds}, so nothing is said about other seeds."


def verdict(found: Agreement) -> str:
    """Return in one sentence which pairs differ by more than seeds do."""
    pairs = [pair.beyond_seeds for pair in found.means if pair.beyond_seeds is not None]
    if not pairs:
        return "Whether methods differ by more than seeds do: no answer, because that needs two seeds of each method."
    more, less = sum(one.low > 0 for one in pairs), sum(one.high < 0 for one in pairs)
    unclear = len(pairs) - more - less
    rest = (f"; {less} less" if less else "") + (f"; of {unclear} nothing can be told" if unclear else "")
    return (
        f"Of {pluralize(len(pairs), 'pair')} {more} disagree{'s' if more == 1 else ''} more than two seeds of one "
        f"method do{rest}."
    )


def _tables(task: str, pairs: Sequence[Pair], style: str) -> str:
    within = [pair for pair in pairs if pair.a == pair.b]
    between = sorted((pair for pair in pairs if pair.a != pair.b), key=_most_different)
    parts = []
    if within:
        rows = [[pair.a, *map(_shown, MEASURES, pair.measures.values())] for pair in within]
        parts.append((f"{task}: two seeds of one method", ("method", *HEADS), rows))
    rows = [
        [pair.a, pair.b, *map(_shown, MEASURES, pair.measures.values()), _beyond(pair), _same(pair)]
        for pair in between[:MOST_PAIRS]
    ]
    left = len(between) - len(rows)
    more = f" (the {len(rows)} that differ most; --output writes all)" if left else ""
    parts.append((f"{task}: two methods{more}", ("A", "B", *HEADS, "beyond seeds", "same seed"), rows))
    texts = []
    for title, head, body in parts:
        align = "".join("l" if name in ("method", "A", "B") else "r" for name in head)
        texts.append(f"{title}\n\n{text_table(head, body, align, style)}")
    return "\n\n".join(texts)


def _most_different(pair: Pair) -> float:
    return -(pair.beyond_seeds or pair.measures["disagreement"]).estimate


def _shown(measure: str, interval: Interval) -> str:
    scale, decimals = (100, 1) if measure in ("disagreement", "overlap") else (1, 2)
    return _with_ends(interval, scale, decimals, "")


def _beyond(pair: Pair) -> str:
    return DASH if pair.beyond_seeds is None else _with_ends(pair.beyond_seeds, 100, 1, "+")


def _same(pair: Pair) -> str:
    return DASH if pair.same_seed is None else _shown("disagreement", pair.same_seed)


def _with_ends(interval: Interval, scale: int, decimals: int, sign: str) -> str:
    """Return `12.3 (10.1 to 14.5)`; a dash where a measure is not defined."""
    if math.isnan(interval.estimate):
        return DASH
    low, value, high = (
        signed(scale * number) if sign else fixed(scale * number, decimals)
        for number in (interval.low, interval.estimate, interval.high)
    )
    return value if math.isnan(interval.low) else f"{value} ({low} to {high})"


def to_csv(found: Agreement) -> str:
    """Return all pairs on all tasks and in the mean as CSV; fractions, empty where a measure is not defined."""
    names = (*MEASURES, "beyond_seeds", "same_seed")
    rows = [["task", "a", "b", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))]]
    for pair in (*found.means, *found.by_task):
        intervals = [*pair.measures.values(), pair.beyond_seeds, pair.same_seed]
        numbers = [n for one in intervals for n in ((one.estimate, one.low, one.high) if one else (math.nan,) * 3)]
        rows.append([pair.task, pair.a, pair.b, *("" if math.isnan(n) else f"{n:.4f}" for n in numbers)])
    return csv_text(rows)
