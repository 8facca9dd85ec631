"""The command `sensitivity`: how much settings matter for each method, from the stored trials of `tune`."""

import argparse
from collections.abc import Sequence

import numpy as np

from ..escaping import csv_text, one_line
from ..reporting.drawing import FOR_PAPERS
from ..reporting.figures.sensitivity import draw_expected, draw_slices
from ..reporting.figures.style import image_files, paper_style
from ..reporting.leaderboard_id import LeaderboardId
from ..reporting.sensitivity import WITHIN, MethodSensitivity, Slice, sensitivities
from ..reporting.tables import DASH, ends, percent, signed
from ..reporting.text_table import text_table
from ..reporting.wording import pluralize
from ..storage.json_io import write_atomically
from ..storage.store import Store
from .messages import say, say_all

SHOWN = (1, 2, 4, 8, 16, 32)
"""Numbers of trials in the table."""
ABOUT = """\
Accuracies are in percent, on val, means over tasks; a point is two of VTAB-1k's 200 images. A slice has the trials
that differ in one field alone. Plateau: the neighbouring values around the best within one point of it; width: its
highest value over its lowest, or their difference if the lowest is 0. Expected best: of k trials drawn at random from
those stored (Dodge et al., EMNLP 2019). Gain: tuned minus default test accuracy, with Student's 95 % interval over
seeds; both settings were fixed before a test image was opened."""


def sensitivity(options: argparse.Namespace) -> int:
    """Run `vtab-peft sensitivity`: print tables, and write them with figures and a CSV file."""
    store = Store(options.results)
    runs, problems = store.load_runs()
    failures, unread = store.load_failures()
    say_all([*problems, *unread])
    found = sensitivities(runs, failures)
    if not found:
        raise ValueError(f"{options.results} holds no method with two trials on val; make some with `vtab-peft tune`")
    folder = options.to or options.results / "sensitivity"
    for identity, methods in found.items():
        files = render(identity, methods)
        for name, data in files.items():
            write_atomically(folder / identity.slug / name, data)
        print(f"{title_of(identity)}\n\n{tables(methods)}\n")
    print(f"{ABOUT}\n")
    say(f"sensitivity of {pluralize(len(found), 'set')} of trials: {folder}")
    return 1 if problems or unread else 0


def render(identity: LeaderboardId, methods: Sequence[MethodSensitivity]) -> dict[str, bytes]:
    """Return the files of one set of trials by name."""
    title = title_of(identity)
    with paper_style():
        drawn = {"slices": draw_slices(methods, title), "expected_best": draw_expected(methods, title)}
        figures = image_files(drawn, FOR_PAPERS)
    page = f"# {title}\n\n{ABOUT}\n\n{tables(methods, 'markdown')}\n"
    return {"sensitivity.md": page.encode(), "slices.csv": _csv(methods).encode(), **figures}


def title_of(identity: LeaderboardId) -> str:
    """Return a line that names the trials."""
    return one_line(f"{identity.suite} · {identity.backbone} · {identity.recipe}")


def tables(methods: Sequence[MethodSensitivity], style: str = "simple") -> str:
    """Return the tables of slices, expected best and gains; `style` is that of `text_table`."""
    plateaus = [(method, found) for method in methods for found in method.slices]
    heads = ("method", "field", "values", "best", "accuracy", "plateau", "width")
    lines = [_plateau_row(method, found) for method, found in plateaus]
    sections = [text_table(heads, lines, "lllrrrr", style)] if lines else []
    most = max(len(method.expected) for method in methods)
    counts = [count for count in SHOWN if count <= most]
    heads = (
        "method",
        "tasks",
        "trials",
        *(f"best of {count}" for count in counts),
        "of all",
        "trials to come within 1 point",
    )
    lines = [_expected_row(method, counts) for method in methods]
    sections.append(text_table(heads, lines, "l" + "r" * (len(counts) + 4), style))
    heads = ("method", "tuned as", "tasks", "seeds", "default", "tuned", "gain", "95 % over seeds")
    if lines := [line for method in methods for line in _gain_rows(method)]:
        sections.append(text_table(heads, lines, "llrrrrrr", style))
    return "\n\n".join(sections)


def _plateau_row(method: MethodSensitivity, found: Slice) -> tuple[str, ...]:
    low, high = found.plateau
    best = found.best
    width = DASH if low == high else _times(high / low) if low > 0 else f"{high - low:g}"
    values = ", ".join(f"{value:g}" for value in found.values)
    accuracy = percent(float(found.means[best]))
    return (method.title, found.field, values, f"{found.values[best]:g}", accuracy, plateau_in_words(found), width)


def _times(ratio: float) -> str:
    return f"{ratio:.3g} x" if ratio < 999.5 else f"{ratio:,.0f} x"


def plateau_in_words(found: Slice) -> str:
    """Return the plateau as text: an interval that is open where it reaches an end of the tried values."""
    low, high = found.plateau
    if low == high:
        return f"{low:g}"
    if low == found.values[0]:
        return "all values tried" if high == found.values[-1] else f"{high:g} or less"
    return f"{low:g} or more" if high == found.values[-1] else f"{low:g} to {high:g}"


def _expected_row(method: MethodSensitivity, counts: Sequence[int]) -> tuple[str, ...]:
    expected, best = method.expected, method.best
    shown = [percent(float(expected[count - 1])) if count <= len(expected) else DASH for count in counts]
    near = np.flatnonzero(expected >= best - WITHIN)
    needed = str(near[0] + 1) if len(near) else f"over {len(expected)}"
    return (method.title, str(len(method.tasks)), str(method.trials), *shown, percent(best), needed)


def _gain_rows(method: MethodSensitivity) -> list[tuple[str, ...]]:
    rows = []
    for gain in method.gains:
        over_seeds = ends(gain.interval) if gain.interval else DASH
        numbers = percent(gain.default), percent(gain.tuned), signed(100 * (gain.tuned - gain.default))
        rows.append((method.title, gain.recipe, str(gain.tasks), str(gain.seeds), *numbers, over_seeds))
    return rows


def _csv(methods: Sequence[MethodSensitivity]) -> str:
    """Return every point of the slices."""
    head = ["method", "field", "value", "task", "accuracy", "other_settings"]
    rows = [
        [method.title, found.field, f"{value:g}", task, percent(float(accuracy), 2), others]
        for method in methods
        for found in method.slices
        for others in [" ".join(f"{name}={value}" for name, value in found.others)]
        for task, line in zip(method.tasks, found.accuracies, strict=True)
        for value, accuracy in zip(found.values, line, strict=True)
    ]
    return csv_text([head, *rows])
