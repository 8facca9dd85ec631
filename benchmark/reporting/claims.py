"""Claimed against measured: what papers print beside a board's own numbers, in tables of their own.

A board gets the sources of its suite that may have used its very weights.  Nothing here ranks: papers tune, select and
average in ways of their own, so a difference is a question, not a verdict.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from .leaderboards import Leaderboard
from .markup import markdown
from .published import MEANS, Row, Source, Spread, recomputed_spread, spread
from .tables import DASH, TERMINAL_WIDTH, cut, fixed

HEADING = "Claimed against measured"
CAUTION = (
    "Published numbers: lowest to highest over the printed rows, copies included and flagged errors left out; means "
    "are recomputed from the printed tasks, or as printed where no tasks are. Papers tune, choose on the test set and "
    "count as each likes, and their settings of a method need not be ours. They rank nothing."
)


@dataclass(frozen=True)
class Claim:
    """What papers print for one row of a board, accuracies in percent."""

    label: str
    """The row's, as in the leaderboard."""
    columns: dict[str, tuple[float | None, Spread | None]]
    """Mean or task -> what was measured, and what papers say."""
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Claims:
    """All that papers say beside a board."""

    lines: tuple[Claim, ...]
    reason: str
    """Why there is nothing; empty when there is."""

    @property
    def sources(self) -> list[Source]:
        return list(dict.fromkeys(source for line in self.lines for source in line.sources))


def claims(entry: Leaderboard, published: Sequence[Row]) -> Claims:
    """What `published` says about the methods of a board."""
    suite, backbone = entry.board.suite, entry.board.backbone
    if suite not in MEANS:
        return Claims((), f"papers print no numbers for {suite}; there are some for {' and '.join(MEANS)}")
    near = [row for row in published if row.source.suite == suite and backbone in row.source.backbones]
    if not near:
        return Claims((), f"no published row of {suite} was made with {backbone}")
    lines = []
    for row in entry.rows:
        own = [claim for claim in near if row["plugin"] is None and claim.method == registered_name(row["spec"])]
        if own:
            lines.append(Claim(row["label"], _columns(entry, row, own), tuple(dict.fromkeys(c.source for c in own))))
    return Claims(tuple(lines), "" if lines else "none of its methods is among the published rows")


def registered_name(spec: str) -> str:
    """`lora` of `lora(rank=4)`."""
    return spec.partition("(")[0]


def _columns(entry: Leaderboard, row: dict[str, Any], own: list[Row]) -> dict[str, tuple[float | None, Spread | None]]:
    means = {mean: (row[mean], recomputed_spread(own, mean) or spread(own, mean)) for mean in MEANS[entry.board.suite]}
    tasks = {task.label: (row[f"accuracy_{task.label}"], spread(own, task.name)) for task in entry.tasks}
    return {
        name: (None if measured is None else 100 * measured, printed)
        for name, (measured, printed) in (means | tasks).items()
    }


def to_markdown(found: Claims) -> str:
    """`published.md` of a board that has lines: two a method, what was measured and what papers print; the sources."""
    names = list(found.lines[0].columns)
    rows = []
    for line in found.lines:
        measured = [DASH if value is None else fixed(value) for value, _ in line.columns.values()]
        printed = [_range(spread) for _, spread in line.columns.values()]
        rows += [[markdown(line.label), "measured", *measured], ["", "published", *printed]]
    head = ["method", "", *(markdown(name) for name in names)]
    rule = ["---", "---", *["--:"] * len(names)]
    table = ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]
    sources = [
        f"- {markdown(f'{s.title}, {s.place}: {s.reference}. {s.pretrained}; reported: {s.selection}; head: {s.head}')}"
        for s in found.sources
    ]
    return "\n".join([f"# {HEADING}", "", CAUTION, "", *table, "", "Sources:", "", *sources, ""])


def to_terminal(found: Claims, entry: Leaderboard) -> str:
    """The means only, of a board that has lines; published.md has the tasks."""
    means = [name for name in found.lines[0].columns if name.startswith("mean_")]
    rows = []
    for line in found.lines:
        pairs = [line.columns[mean] for mean in means]
        cells = [text for value, s in pairs for text in (DASH if value is None else fixed(value), _range(s))]
        rows.append([cut(line.label, 24), *cells, str(len(line.sources))])
    head = ["method", *(f"{mean}\n{what}" for mean in means for what in ("measured", "published")), "sources"]
    table = tabulate(rows, head, "simple", disable_numparse=True, colalign=["left", *["right"] * (len(head) - 1)])
    return "\n".join([f"{HEADING}: {entry.board.title}", "", table, "", textwrap.fill(CAUTION, TERMINAL_WIDTH), ""])


def _range(spread: Spread | None) -> str:
    """`72.3 to 73.6`, or one number where all agree."""
    if spread is None:
        return DASH
    low, high = fixed(spread.low), fixed(spread.high)
    return low if low == high else f"{low} to {high}"
