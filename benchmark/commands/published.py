"""The verb `published`: what papers print about a method, and how much they disagree."""

import argparse
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from tabulate import tabulate

from ...datasets.tasks import suite_tasks
from ..reporting.published import (
    MEANS,
    PublishedRange,
    PublishedRow,
    copies,
    find,
    load,
    published_range,
    recomputed_range,
)
from ..reporting.tables import DASH, TERMINAL_WIDTH, fixed
from ..reporting.wording import pluralize

MEAN_NAMES = {"mean_19": "mean of 19 tasks", "mean_groups": "mean of 3 groups", "mean_5": "mean of 5 tasks"}


def show(options: argparse.Namespace) -> int:
    """`vtab-peft published METHOD`.

    Raises:
        ValueError: nothing is published under that name.
    """
    rows = find(options.method, load())
    print(json.dumps(to_json(options.method, rows), indent=1, ensure_ascii=False) if options.json else to_text(rows))
    return 0


def to_json(query: str, rows: Sequence[PublishedRow]) -> dict[str, Any]:
    """Every number with its source, and the spreads; accuracies in percent."""
    return {
        "query": query,
        "rows": [asdict(row) | {"recomputed": row.recomputed} for row in rows],
        "spreads": [
            {"suite": suite, "architecture": architecture, "name": name, "how": how, **asdict(found)}
            for suite, architecture, part in parts(rows)
            for name, how, found in spreads(suite, part)
        ],
    }


def parts(rows: Sequence[PublishedRow]) -> list[tuple[str, str, list[PublishedRow]]]:
    """Suite, architecture and their rows: what may be set side by side."""
    names = list(dict.fromkeys((row.source.suite, row.source.architecture) for row in rows))
    return [(*name, [row for row in rows if (row.source.suite, row.source.architecture) == name]) for name in names]


def spreads(suite: str, rows: Sequence[PublishedRow]) -> list[tuple[str, str, PublishedRange]]:
    """Task or mean, whether it is printed or recomputed from tasks, and its spread; gaps are left out."""
    found = [
        *((mean, "recomputed", recomputed_range(rows, mean)) for mean in MEANS[suite]),
        *((mean, "printed", published_range(rows, mean)) for mean in MEANS[suite]),
        *((task, "printed", published_range(rows, task)) for task in suite_tasks(suite)),
    ]
    return [(name, how, found) for name, how, found in found if found is not None]


def to_text(rows: Sequence[PublishedRow]) -> str:
    """For a terminal: per suite and architecture the rows, then how far they are apart; sources at the end."""
    blocks = [_block(suite, architecture, part) for suite, architecture, part in parts(rows)]
    sources = {row.source.source: row.source for row in rows}
    notes = [
        "Papers differ in weights, in the epoch they report, in the mean they print and in counting the head.",
        "Means of 19 tasks and of 3 groups are different quantities: compare within a column. * is flagged as an error "
        "of the source, and stretches no range. These numbers rank nothing.",
    ]
    lines = [
        f"[{name}] {s.title}, {s.place}: {s.reference}. {s.pretrained}; normalisation {s.normalisation}; "
        f"reported: {s.selection}; seeds: {s.seeds}; head: {s.head}" + (f"; {s.note}" if s.note else "")
        for name, s in sources.items()
    ]
    flags = dict.fromkeys(
        f"* [{row.source.source}] {row.printed}, {name}: {number.flag}"
        for row in rows
        for name, number in _one_flag_a_reason(row)
    )
    wrapped = [
        textwrap.fill(line, TERMINAL_WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for line in [*notes, *flags, "", *lines]
    ]
    return "\n\n".join([*blocks, "\n".join(wrapped)])


def _one_flag_a_reason(row: PublishedRow) -> list[tuple[str, Any]]:
    seen: dict[str, tuple[str, Any]] = {}
    for name, number in row.numbers.items():
        seen.setdefault(number.flag, (name, number))
    return [entry for flag, entry in seen.items() if flag]


def _block(suite: str, architecture: str, rows: list[PublishedRow]) -> str:
    means = MEANS[suite]
    bundles = copies(rows)
    lines = [
        [
            *(bundle[0].printed, _params(bundle)),
            *(_recomputed(bundle[0], mean) for mean in means),
            *(_printed(bundle, mean) for mean in means),
            " ".join(f"[{row.source.source}]" for row in bundle),
        ]
        for bundle in sorted(bundles, key=_order)
    ]
    short = {"mean_19": "of 19", "mean_groups": "of groups", "mean_5": "of 5"}
    head = [
        *("printed as", "params M"),
        *(f"{short[mean]},\n{how}" for how in ("recomputed", "printed") for mean in means),
        "sources",
    ]
    table = _plain_table(
        head, [[*line[:-1], textwrap.fill(line[-1], 34)] for line in lines], right=range(1, len(head) - 1)
    )
    title = f"{suite} · {architecture} · {pluralize(len(rows), 'row')}, {len(bundles)} different"
    if len(bundles) == 1:
        return f"{title}\n\n{table}"
    apart = [[MEAN_NAMES.get(name, name), how, *_ends(s), str(s.rows)] for name, how, s in spreads(suite, rows)]
    ranges = _plain_table(["", "", "lowest", "highest", "range", "rows"], apart, right=range(2, 6))
    return f"{title}\n\n{table}\n\nHow far they are apart (percent):\n\n{ranges}"


def _plain_table(head: list[str], lines: list[list[str]], right: range) -> str:
    align = ["right" if place in right else "left" for place in range(len(head))]
    return tabulate(lines, head, "simple", colalign=align, disable_numparse=True)


def _order(bundle: list[PublishedRow]) -> tuple[float, str]:
    found = {**{name: n.accuracy for name, n in bundle[0].numbers.items()}, **bundle[0].recomputed}
    return -found.get("mean_19", found.get("mean_groups", found.get("mean_5", 0.0))), bundle[0].printed


def _recomputed(row: PublishedRow, mean: str) -> str:
    return fixed(row.recomputed[mean], 2) if row.recomputed else DASH


def _ends(found: PublishedRange) -> list[str]:
    """Lowest, highest and what lies between, with two decimals where one would move an end."""
    decimals = 1 if all(abs(round(end, 1) - end) < 1e-6 for end in (found.low, found.high)) else 2
    return [fixed(value, decimals) for value in (found.low, found.high, found.high - found.low)]


def _printed(bundle: list[PublishedRow], mean: str) -> str:
    """What the copies print; they may round differently."""
    found = [row.numbers[mean] for row in bundle if mean in row.numbers]
    return " ".join(dict.fromkeys(f"{n.accuracy:g}" + "*" * bool(n.flag) for n in found)) or DASH


def _params(bundle: list[PublishedRow]) -> str:
    """As printed, which is with the head or without it; where they differ from task to task, their mean."""
    found = []
    for row in bundle:
        each = [number.params_m for number in row.numbers.values() if number.params_m is not None]
        found.append(row.params_m if row.params_m is not None else fmean(each) if each else None)
    return " ".join(dict.fromkeys(f"{value:.3g}" for value in found if value is not None)) or DASH
