"""Compare published accuracies with the measured ones of a leaderboard, in separate tables.

A leaderboard is compared with the sources of its suite that may have used the same weights.  Published numbers never
enter a rank: papers tune, select epochs and average in different ways.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..escaping import markdown
from .leaderboards import Leaderboard
from .markup import markdown_table
from .published import MEANS, PublishedRange, PublishedRow, Source, published_range, recomputed_range
from .tables import DASH, TERMINAL_WIDTH, cut, fixed
from .text_table import text_table

HEADING = "Published and measured"
CAUTION = (
    "Published numbers: lowest to highest over the printed rows, including copied rows, without flagged errors. Means "
    "are recomputed from the printed tasks, or as printed if there are no tasks. Papers differ in tuning, in the epoch "
    "they report, which some select on the test images, in how they count parameters and in the settings of a method. "
    "These numbers rank nothing."
)


@dataclass(frozen=True)
class ComparedRow:
    """One leaderboard row beside the published numbers of its method; accuracies in percent."""

    label: str
    """The label of the leaderboard row."""
    columns: dict[str, tuple[float | None, PublishedRange | None]]
    """Mean or task -> (measured accuracy, published range)."""
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class PublishedComparison:
    """All published numbers that may be compared with a leaderboard."""

    rows: tuple[ComparedRow, ...]
    reason: str
    """The reason for having no rows; empty if there are rows."""

    @property
    def sources(self) -> list[Source]:
        return list(dict.fromkeys(source for row in self.rows for source in row.sources))


def compare_with_published(leaderboard: Leaderboard, published: Sequence[PublishedRow]) -> PublishedComparison:
    """Find the published rows of the same suite, backbone and methods as a leaderboard."""
    suite, backbone = leaderboard.id.suite, leaderboard.id.backbone
    if suite not in MEANS:
        reason = f"there are no published numbers for the suite {suite}, only for {' and '.join(MEANS)}"
        return PublishedComparison((), reason)
    comparable = [row for row in published if row.source.suite == suite and backbone in row.source.backbones]
    if not comparable:
        return PublishedComparison((), f"no published row of {suite} used {backbone}")
    rows = []
    for row in leaderboard.rows:
        found = [entry for entry in comparable if not row["plugin"] and entry.method == method_name(row["spec"])]
        if found:
            sources = tuple(dict.fromkeys(entry.source for entry in found))
            rows.append(ComparedRow(row["label"], _columns(leaderboard, row, found), sources))
    rows.sort(key=lambda row: row.label.casefold())
    return PublishedComparison(tuple(rows), "" if rows else "none of its methods has a published row")


def method_name(spec: str) -> str:
    """Return the registered name in a method spec: `lora` for `lora(rank=4)`; of a combination the whole spec."""
    return spec if " + " in spec else spec.partition("(")[0]


def _columns(
    leaderboard: Leaderboard, row: dict[str, Any], published: list[PublishedRow]
) -> dict[str, tuple[float | None, PublishedRange | None]]:
    columns = {}
    for mean in MEANS[leaderboard.id.suite]:
        columns[mean] = row[mean], recomputed_range(published, mean) or published_range(published, mean)
    for task in leaderboard.tasks:
        columns[task.label] = row[f"accuracy_{task.label}"], published_range(published, task.name)
    return {
        name: (None if measured is None else 100 * measured, printed) for name, (measured, printed) in columns.items()
    }


def to_markdown(comparison: PublishedComparison) -> str:
    """Return `published.md`: two lines per method (measured, published), then the sources."""
    names = list(comparison.rows[0].columns)
    lines = []
    for row in comparison.rows:
        measured, ranges = zip(*map(_cells, row.columns.values()), strict=True)
        lines += [[markdown(row.label), "measured", *measured], ["", "published", *ranges]]
    sources = [
        f"- {markdown(f'{s.title}, {s.place}: {s.reference}. {s.pretrained}; reported: {s.selection}; ')}"
        f"{markdown(f'selected on test: {s.test_selected}; head: {s.head}')}"
        for s in comparison.sources
    ]
    table = markdown_table(["method", "", *map(markdown, names)], lines, "ll" + "r" * len(names))
    return "\n".join([f"# {HEADING}", "", CAUTION, "", table, "", "Sources:", "", *sources, ""])


def to_terminal(comparison: PublishedComparison, leaderboard: Leaderboard) -> str:
    """Return a table of the means; `published.md` also has the tasks."""
    means = [name for name in comparison.rows[0].columns if name.startswith("mean_")]
    lines = []
    for row in comparison.rows:
        cells = [text for mean in means for text in _cells(row.columns[mean])]
        lines.append([cut(row.label, 24), *cells, str(len(row.sources))])
    head = ["method", *(f"{mean}\n{what}" for mean in means for what in ("measured", "published")), "sources"]
    table = text_table(head, lines, "l" + "r" * (len(head) - 1))
    title = f"{HEADING}: {leaderboard.id.title}"
    return "\n".join([title, "", table, "", textwrap.fill(CAUTION, TERMINAL_WIDTH), ""])


def _cells(column: tuple[float | None, PublishedRange | None]) -> tuple[str, str]:
    """Return the measured accuracy and the published range: `72.3 to 73.6`, or one number if both ends agree."""
    measured, published = column
    return DASH if measured is None else fixed(measured), range_text(published)


def range_text(published: PublishedRange | None) -> str:
    """Return `72.3 to 73.6`, one number if both ends agree, or a dash."""
    return " to ".join(dict.fromkeys((fixed(published.low), fixed(published.high)))) if published else DASH
