"""Ensembles as tables: text or Markdown, and CSV."""

from collections import Counter

from ..escaping import csv_text
from .ensembles import STRATEGIES, Choice, Ensembles, Outcome
from .leaderboards import Leaderboard
from .stats import Interval
from .tables import DASH, ends, heading, percent, signed
from .text_table import text_table
from .wording import pluralize


def to_text(found: Ensembles, entry: Leaderboard, style: str = "simple") -> str:
    """Return the tables as text; `style` is that of `text_table`."""
    choices = [[choice.task.label, choice.ranking[0], members_of(choice)] for choice in found.choices]
    rows = [[text, sizes_of(found)[name], *_cells(found.mean, name)] for name, text in STRATEGIES.items()]
    over = found.mean.task if len(choices) > 1 else choices[0][0]
    head = ("prediction", "members", over, "gain (95 %)")
    gains = text_table(head, rows, "lrrr", style)
    tasks = [
        [one.task, *(percent(one.accuracy[name]) for name in STRATEGIES), _gain(one.gain["chosen"])]
        for one in found.by_task
    ]
    names = ("task", "best", "its seeds", "chosen", "all", "vote", "gain of chosen (95 %)")
    each = text_table(names, tasks, "l" + "r" * 6, style)
    heads = ("task", "best on val", "chosen on val (in how many ensembles)")
    chosen = text_table(heads, choices, "lll", style)
    notes = [
        "Accuracy in percent.  averaged: the mean of the probabilities.  Choices were made on val, by runs trained",
        "on train, and each ensemble was tested once.  gain: over the best method on val, mean over seeds.",
        "Members have the seeds in turn.  Intervals: 95 %, over images alone; they say nothing about other seeds.",
    ]
    seeds = " ".join(map(str, found.seeds))
    above = "\n".join([*heading(entry)[:1], f"{pluralize(len(found.labels), 'method')}, seeds {seeds}"])
    return "\n\n".join([above, gains, each, chosen, "\n".join(notes)])


def sizes_of(found: Ensembles) -> dict[str, int]:
    """Return the number of models of each strategy."""
    every = len(found.labels)
    return {"single": 1, "seeds": len(found.seeds), "chosen": found.size, "all": every, "vote": every}


def members_of(choice: Choice) -> str:
    """Return the chosen methods and in how many ensembles they are, the most frequent first."""
    counts = Counter(label for members in choice.members for label, _ in members)
    return ", ".join(f"{label} ({n})" for label, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _cells(outcome: Outcome, name: str) -> list[str]:
    return [percent(outcome.accuracy[name]), _gain(outcome.gain[name]) if name in outcome.gain else DASH]


def _gain(interval: Interval) -> str:
    return f"{signed(100 * interval.estimate)} ({ends(interval)})"


def to_csv(found: Ensembles) -> str:
    """Return the accuracies and gains of all tasks and their mean as CSV, in fractions."""
    rows = [["task", "prediction", "members", "accuracy", "gain", "gain_low", "gain_high"]]
    sizes = sizes_of(found)
    for outcome in (found.mean, *found.by_task):
        for name in STRATEGIES:
            gain = outcome.gain.get(name)
            numbers = [outcome.accuracy[name], *((gain.estimate, gain.low, gain.high) if gain else ())]
            cells = [f"{number:.4f}" for number in numbers]
            rows.append([outcome.task, name, str(sizes[name]), *cells, *[""] * (4 - len(cells))])
    return csv_text(rows)
