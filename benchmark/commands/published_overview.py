"""The answer of `published FAMILY` in a few lines: what papers print, what reruns got, and where they disagree."""

import textwrap
from collections.abc import Sequence
from itertools import combinations

from ...datasets.tasks import suite_tasks
from ..reporting.published import MEANS, PublishedRow
from ..reporting.tables import fixed, signed

WIDTH = 100
"""Width of the text in characters (ours)."""
DISAGREE = 1.0
"""Points between the nearest numbers of two kinds of sources from which they disagree (ours)."""
KINDS = {
    "paper": "papers",
    "repository": "repositories",
    "secondary": "paper, second-hand",
    "deleted": "rerun, deleted since",
}
"""Kind of source -> its label, in the order of the lines."""
BASELINE = "lora"
"""The method that a row is compared with, if the row's own source prints it."""
MEAN_NAMES = {"mean_19": "mean of 19 tasks", "mean_groups": "mean of 3 groups", "mean_5": "mean of 5 tasks"}


def overview(title: str, rows: Sequence[PublishedRow], everything: Sequence[PublishedRow]) -> str:
    """Return a few lines per suite and architecture; `everything` also holds the baselines of the sources."""
    lines = [f"{title}: published numbers in percent, and where the sources disagree"]
    for suite, architecture in dict.fromkeys((row.source.suite, row.source.architecture) for row in rows):
        mean = MEANS[suite][0]
        own = [row for row in rows if (row.source.suite, row.source.architecture) == (suite, architecture)]
        kinds = {kind: [row for row in own if row.source.kind == kind and row.mean(mean)] for kind in KINDS}
        kinds = {kind: found for kind, found in kinds.items() if found}
        lines.append(f"{suite} · {architecture} · {MEAN_NAMES[mean]}")
        lines += [f"  {KINDS[kind]}: {_accuracies(found, mean, everything)}" for kind, found in kinds.items()]
        lines += [_difference(kinds[a], kinds[b], mean) for a, b in combinations(kinds, 2)]
    removed = {row.source.reference.rpartition(" by ")[0] for row in rows if row.source.kind == "deleted"}
    lines += [f"rerun: {reference}" for reference in sorted(removed)]
    selected = [row.test_selected for row in rows]
    counts = ", ".join(f"{selected.count(answer)} {answer}" for answer in ("yes", "no", "unknown"))
    lines.append(f"epoch selected on the test images, rows: {counts}")
    lines.append("Every number with its source and seeds: --json, or the name of one method.")
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False) for line in lines)


def _accuracies(rows: Sequence[PublishedRow], mean: str, everything: Sequence[PublishedRow]) -> str:
    """Return printed names and means, each method's mean once, and their difference to the source's own baseline."""
    texts: dict[tuple[str, str], str] = {}
    for row in rows:
        accuracy = row.mean(mean) or 0.0
        text = f"{row.printed} {fixed(accuracy)}"
        for other in everything:
            theirs = other.mean(mean)
            if other.source == row.source and other.method == BASELINE != row.method and theirs:
                text += f" ({signed(accuracy - theirs)} to its own {other.printed}, {fixed(theirs)})"
        texts.setdefault((row.method, fixed(accuracy)), text)
    return "; ".join(texts.values())


def _difference(ours: Sequence[PublishedRow], theirs: Sequence[PublishedRow], mean: str) -> str:
    """Return how far two kinds of sources are apart, and the task where they are farthest apart."""
    apart = _gap([row.mean(mean) for row in ours], [row.mean(mean) for row in theirs])
    if apart < DISAGREE:
        return f"  -> they agree: the nearest are {apart:.1f} points apart"
    tasks = {name: _gap(_printed(ours, name), _printed(theirs, name)) for name in suite_tasks(ours[0].source.suite)}
    worst = max(tasks, key=lambda name: tasks[name])
    ends = [_ends(_printed(rows, worst)) for rows in (ours, theirs)]
    where = f"; most on {worst}: {' against '.join(ends)}" if tasks[worst] else ""
    return f"  -> they DISAGREE: the nearest are {apart:.1f} points apart{where}"


def _printed(rows: Sequence[PublishedRow], task: str) -> list[float]:
    return [row.numbers[task].accuracy for row in rows if task in row.numbers and not row.numbers[task].flag]


def _ends(accuracies: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys((fixed(min(accuracies)), fixed(max(accuracies))))) if accuracies else "nothing"


def _gap(ours: Sequence[float | None], theirs: Sequence[float | None]) -> float:
    """Return the distance between two ranges; 0 if they overlap or one is empty."""
    a, b = ([value for value in values if value is not None] for values in (ours, theirs))
    return max(0.0, min(a) - max(b), min(b) - max(a)) if a and b else 0.0
