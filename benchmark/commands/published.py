"""The command `published`: results that papers report for a method, and how much they differ."""

import argparse
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from ...datasets.tasks import suite_tasks
from ..reporting.published import (
    MEANS,
    PublishedRange,
    PublishedRow,
    copies,
    find,
    load,
    methods_of_family,
    published_range,
    recomputed_range,
)
from ..reporting.tables import DASH, TERMINAL_WIDTH, fixed
from ..reporting.text_table import text_table
from ..reporting.wording import pluralize
from .published_overview import MEAN_NAMES, overview


def show(options: argparse.Namespace) -> int:
    """Run `vtab-peft published METHOD`, also with the name of a family.

    Raises:
        ValueError: no paper reports a method of this name.
    """
    rows = find(options.method, load())
    if options.json or options.format == "json":
        print(json.dumps(to_json(options.method, rows), indent=1, ensure_ascii=False))
    elif methods_of_family(options.method):
        print(overview(options.method, rows, load()))
    else:
        print(to_text(rows))
    return 0


def to_json(query: str, rows: Sequence[PublishedRow]) -> dict[str, Any]:
    """Return every number with its source, and the ranges; accuracies in percent."""
    return {
        "query": query,
        "rows": [asdict(row) | {"recomputed": row.recomputed} for row in rows],
        "spreads": [
            {"suite": suite, "architecture": architecture, "name": name, "how": how, **asdict(found)}
            for suite, architecture, own in groups(rows)
            for name, how, found in ranges(suite, own)
        ],
    }


def groups(rows: Sequence[PublishedRow]) -> list[tuple[str, str, list[PublishedRow]]]:
    """Return suite, architecture and their rows; only rows of one group are comparable."""
    names = list(dict.fromkeys((row.source.suite, row.source.architecture) for row in rows))
    return [(*name, [row for row in rows if (row.source.suite, row.source.architecture) == name]) for name in names]


def ranges(suite: str, rows: Sequence[PublishedRow]) -> list[tuple[str, str, PublishedRange]]:
    """Return task or mean, "printed" or "recomputed", and the range over papers; missing ones are left out."""
    found = [
        *((mean, "recomputed", recomputed_range(rows, mean)) for mean in MEANS[suite]),
        *((mean, "printed", published_range(rows, mean)) for mean in MEANS[suite]),
        *((task, "printed", published_range(rows, task)) for task in suite_tasks(suite)),
    ]
    return [(name, how, found) for name, how, found in found if found is not None]


def to_text(rows: Sequence[PublishedRow]) -> str:
    """Return a table of results and a table of ranges per suite and architecture, then notes and sources."""
    blocks = [_block(suite, architecture, own) for suite, architecture, own in groups(rows)]
    sources = {row.source.source: row.source for row in rows}
    notes = [
        "Papers differ in weights, in the reported epoch, in the kind of mean and in whether the head is counted.",
        "Means of 19 tasks and of 3 groups are different quantities: compare within a column. * marks an error of the "
        "source, which no range includes. These numbers do not rank methods.",
    ]
    lines = [
        f"[{name}] {s.title}, {s.place}: {s.reference}. {s.pretrained}; normalisation {s.normalisation}; "
        f"reported: {s.selection}; selected on test: {s.test_selected}; "
        f"seeds: {s.seeds}; head: {s.head}" + (f"; {s.note}" if s.note else "")
        for name, s in sources.items()
    ]
    flags: dict[tuple[int, str], str] = {}  # the first number of each row and flag
    for index, row in enumerate(rows):
        for name, number in row.numbers.items():
            if number.flag:
                line = f"* [{row.source.source}] {row.printed}, {name}: {number.flag}"
                flags.setdefault((index, number.flag), line)
    wrapped = [
        textwrap.fill(line, TERMINAL_WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for line in [*notes, *dict.fromkeys(flags.values()), "", *lines]
    ]
    return "\n\n".join([*blocks, "\n".join(wrapped)])


def _block(suite: str, architecture: str, rows: list[PublishedRow]) -> str:
    means, bundles = MEANS[suite], copies(rows)
    lines = [
        [
            *(bundle[0].printed, _params(bundle)),
            *(fixed(bundle[0].recomputed[mean], 2) if bundle[0].recomputed else DASH for mean in means),
            *(_printed(bundle, mean) for mean in means),
            textwrap.fill(" ".join(f"[{row.source.source}]" for row in bundle), 34),
        ]
        for bundle in sorted(bundles, key=_order)
    ]
    short = {"mean_19": "of 19", "mean_groups": "of groups", "mean_5": "of 5"}
    columns = [f"{short[mean]},\n{how}" for how in ("recomputed", "printed") for mean in means]
    table = text_table(["printed as", "params M", *columns, "sources"], lines, "l" + "r" * (len(columns) + 1) + "l")
    title = f"{suite} · {architecture} · {pluralize(len(rows), 'row')}, {len(bundles)} different"
    if len(bundles) == 1:
        return f"{title}\n\n{table}"
    head = ["", "", "lowest", "highest", "range", "rows", "selected\non test", "not on\ntest"]
    differences = [
        [MEAN_NAMES.get(name, name), how, *_ends(s), *map(str, (s.rows, s.on_test, s.not_on_test))]
        for name, how, s in ranges(suite, rows)
    ]
    differences_table = text_table(head, differences, "llrrrrrr")
    return f"{title}\n\n{table}\n\nRange over papers (percent):\n\n{differences_table}"


def _order(bundle: list[PublishedRow]) -> tuple[float, str]:
    found = {**{name: n.accuracy for name, n in bundle[0].numbers.items()}, **bundle[0].recomputed}
    return -found.get("mean_19", found.get("mean_groups", found.get("mean_5", 0.0))), bundle[0].printed


def _ends(found: PublishedRange) -> list[str]:
    """Return lowest, highest and their difference, with two decimals if one decimal would change an end."""
    decimals = 1 if all(abs(round(end, 1) - end) < 1e-6 for end in (found.low, found.high)) else 2
    return [fixed(value, decimals) for value in (found.low, found.high, found.high - found.low)]


def _printed(bundle: list[PublishedRow], mean: str) -> str:
    """Return what the copies of a row print; they may round differently."""
    found = [row.numbers[mean] for row in bundle if mean in row.numbers]
    return " ".join(dict.fromkeys(f"{n.accuracy:g}" + "*" * bool(n.flag) for n in found)) or DASH


def _params(bundle: list[PublishedRow]) -> str:
    """Return the printed number of parameters in millions; the mean over tasks if it differs between tasks."""
    found = []
    for row in bundle:
        each = [number.params_m for number in row.numbers.values() if number.params_m is not None]
        found.append(row.params_m if row.params_m is not None else fmean(each) if each else None)
    return " ".join(dict.fromkeys(f"{value:.3g}" for value in found if value is not None)) or DASH
