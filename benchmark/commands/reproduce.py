"""The command `reproduce`: run a paper with its own settings, and print its numbers beside the measured ones.

The settings are those of the released code: recipe, backbone, normalisation, interpolation, and the epoch that the
paper reports.  Options replace any of them, so a small suite or backbone shows the same tables in minutes.
"""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ...datasets.few_shots import split_suite
from ...datasets.task import nearest
from ...datasets.tasks import suite_tasks
from ..recipes import TABLES
from ..reporting.published import MEANS, PublishedRange, PublishedRow, published_range, recomputed_range
from ..reporting.published import load as load_published
from ..reporting.published_vs_measured import method_name, range_text
from ..reporting.stats import InsufficientData, over_seeds
from ..reporting.tables import DASH, fixed, signed
from ..reporting.text_table import text_table
from ..reporting.wording import pluralize
from ..spec import TaskRef
from ..storage.schema import Run
from ..storage.store import Store
from .messages import load_latest
from .run import execute

BySeed = dict[int, float]
"""Seed -> accuracy in percent."""

ORACLE = "best test epoch"
"""Value of `Paper.selection` for papers that choose the epoch on the test images."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The settings with which a paper got its numbers."""

    title: str
    methods: tuple[str, ...]
    recipe: str
    backbone: str
    normalisation: str
    interpolation: str
    selection: str
    """The epoch that the paper reports: "last epoch" or "best test epoch"."""
    note: str
    """How the paper's search differs from these settings; empty if it does not."""
    sources: tuple[str, ...]
    """Published tables to compare with; empty: all that used this backbone."""


def load_papers() -> dict[str, Paper]:
    """Read `recipe_tables/papers.toml`: name -> settings."""
    entries = tomllib.loads((TABLES / "papers.toml").read_text(encoding="utf-8"))
    for entry in entries.values():
        entry |= {"methods": tuple(entry["methods"]), "sources": tuple(entry["sources"])}
    return {name: Paper(**entry) for name, entry in entries.items()}


def reproduce(options: argparse.Namespace) -> int:
    """Run `vtab-peft reproduce PAPER` and return the exit status.

    Raises:
        ValueError: there is no such paper, or an option is wrong.
    """
    papers = load_papers()
    if options.paper not in papers:
        raise ValueError(f"no paper {options.paper!r}{nearest(options.paper, papers)}; known are {', '.join(papers)}")
    paper = papers[options.paper]
    for name in ("recipe", "backbone", "normalisation", "interpolation"):
        setattr(options, name, getattr(options, name) or getattr(paper, name))
    options.methods = options.methods or list(paper.methods)
    if all("/" not in task for task in options.tasks):
        options.suite = options.suite or "vtab1k"
    options.oracle = paper.selection == ORACLE
    print(
        f"{paper.title}\n{options.backbone}, recipe {options.recipe}, normalisation {options.normalisation}, "
        f"{options.interpolation}; the paper reports the {paper.selection}"
    )
    print(f"note: {paper.note}\n" if paper.note else "")
    if (done := execute(options)) is None:
        return 0
    runs, result = done
    store = Store(options.results)
    found = [run for planned in runs if (run := load_latest(store, planned.spec)) is not None]
    for spec in dict.fromkeys(run.spec.method.spec for run in runs):
        if of_method := [run for run in found if run.method_spec == spec]:
            print(f"\n{table(paper, spec, of_method)}")
    print(f"\n{NOTE}")
    return 1 if result.failed or result.left else 0


NOTE = """\
published: as printed, lowest to highest over the tables that used this backbone.
last, best: accuracy after the last epoch and in the best test epoch, mean over seeds.
difference: measured in the paper's way, minus the nearest published number; 95 %: its interval over
seeds (Student).  Only the official tasks of VTAB-1k and FGVC have published numbers.
The best test epoch is chosen on the test images, so it ranks nothing."""


def table(paper: Paper, spec: str, runs: Sequence[Run]) -> str:
    """Return the table of one method: a line per task, and one per mean over all tasks of the suite."""
    published, oracle = published_rows(paper, spec, runs), paper.selection == ORACLE
    last, best = (by_task(runs, of_best) for of_best in (False, True))
    rows: list[tuple[str, PublishedRange | None, BySeed, BySeed | None]] = []
    for task in last:
        printed = published_range(published, task.name) if task.suite in MEANS else None
        _, draw = split_suite(task.suite)
        name = f"{task.name} · {draw}" if draw else task.name
        rows.append((name, printed, last[task], best[task] if oracle else None))
    for mean in means_of(last):
        printed = recomputed_range(published, mean) or published_range(published, mean)
        rows.append((mean, printed, mean_by_seed(last, runs, mean), mean_by_seed(best, runs, mean) if oracle else None))
    lines = [_line(*row) for row in rows]
    counts = [len(of_last if of_best is None else of_best) for *_, of_last, of_best in rows]
    head = ["task", "published", "last", *(["best"] if oracle else []), "difference", "95 %"]
    if len({*counts}) == 1:
        seeds = pluralize(counts[0], "seed")
    else:
        seeds = f"{min(counts)} to {max(counts)} seeds"
        head, lines = [*head, "seeds"], [[*line, str(n)] for line, n in zip(lines, counts, strict=True)]
    shown = text_table(head, lines, "l" + "r" * (len(head) - 1))
    return f"{spec}: {seeds}\n{shown}"


def published_rows(paper: Paper, spec: str, runs: Sequence[Run]) -> list[PublishedRow]:
    """Return the published rows of the method with the backbone of the runs, from the paper's sources if it has any."""
    backbones = {run.spec.backbone.name for run in runs}
    return [
        row
        for row in load_published()
        if row.method == method_name(spec)
        and backbones <= set(row.source.backbones)
        and (not paper.sources or row.source.source in paper.sources)
    ]


def by_task(runs: Sequence[Run], of_best: bool = False) -> dict[TaskRef, BySeed]:
    """Return task -> seed -> accuracy in percent, after the last epoch or in the best test epoch."""
    found: dict[TaskRef, BySeed] = {}
    for run in runs:
        accuracy = run.oracle_accuracy if of_best else run.accuracy
        own = found.setdefault(run.spec.task, {})
        if accuracy is not None:
            own[run.spec.seed] = 100 * accuracy
    return found


def means_of(tasks: Mapping[TaskRef, BySeed]) -> tuple[str, ...]:
    """Return the means of the suite, if `tasks` are all its tasks."""
    suites, names = {task.suite for task in tasks}, {task.name for task in tasks}
    suite = suites.pop() if len(suites) == 1 else ""
    return MEANS[suite] if suite in MEANS and names == set(suite_tasks(suite)) else ()


def mean_by_seed(tasks: Mapping[TaskRef, BySeed], runs: Sequence[Run], mean: str) -> BySeed:
    """Return the mean over tasks, or over the means of their groups, for each seed that all tasks have."""
    group_of = {run.spec.task: run.group if mean == "mean_groups" else "" for run in runs}
    seeds = set.intersection(*(set(own) for own in tasks.values()))
    groups = [[tasks[task] for task in tasks if group_of[task] == group] for group in sorted(set(group_of.values()))]
    return {seed: fmean(fmean(own[seed] for own in group) for group in groups) for seed in seeds}


def _line(name: str, printed: PublishedRange | None, last: BySeed, best: BySeed | None) -> list[str]:
    """Return the cells of one line; the difference is to the nearest end of the published range."""
    measured = last if best is None else best
    cells = [name, range_text(printed), *(_mean(own) for own in (last, best) if own is not None)]
    if printed is None or not measured:
        return [*cells, DASH, DASH]
    center = fmean(measured.values())
    nearest = min(max(center, printed.low), printed.high)
    try:
        interval = over_seeds(list(measured.values()))
        ends = f"{signed(interval.low - nearest)} to {signed(interval.high - nearest)}"
    except InsufficientData:
        ends = DASH
    return [*cells, signed(center - nearest), ends]


def _mean(accuracies: BySeed) -> str:
    return fixed(fmean(accuracies.values())) if accuracies else DASH
