"""The verbs `data check`, `data status` and `data cache`: what data there is, and what became of it."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tabulate import tabulate

from ...datasets.cache import default_root
from ...datasets.cache_report import CacheReport, Reason, prune, survey
from ...datasets.check import CheckResult, check
from ...datasets.task import SPLITS
from ...datasets.tasks import find_valid
from ..reporting.wording import pluralize

REASONS: dict[Reason, str] = {
    "unfinished": "left unfinished by builds that were killed",
    "damaged": "manifests that cannot be read",
    "source gone": "of tasks whose folder is not there any more",
    "unnamed": "arrays that no task names",
}


def check_data(options: argparse.Namespace) -> int:
    """`vtab-peft data check`: one line per task; exit status 1 unless all can be used."""
    verdicts = _verdicts(options, options.deep)
    print(_table(verdicts))
    for label, verdict in verdicts:
        for problem in verdict.problems:
            print(f"{label}: {problem}")
        if verdict.state != "found":
            print(f"{label}: {verdict.advice}")
    return 0 if all(verdict.state == "found" for _, verdict in verdicts) else 1


def status(options: argparse.Namespace) -> int:
    """`vtab-peft data status`: the table of `data check`, and no judgement: exit status 0."""
    verdicts = _verdicts(options, deep=False)
    print(_table(verdicts))
    ready = sum(verdict.state == "found" for _, verdict in verdicts)
    print(f"{ready} of {len(verdicts)} can be used" + ("" if ready == len(verdicts) else "; `data check` says why"))
    return 0


def _verdicts(options: argparse.Namespace, deep: bool) -> list[tuple[str, CheckResult]]:
    """What each task is called, or its folder where that is no task, and what is to be said of it."""
    tasks, refused = find_valid(options.tasks, options.suite, options.data)
    verdicts = [(task.label, check(task, deep)) for task in tasks]
    for name, why in refused.items():
        state = "wrong" if Path(name).expanduser().is_dir() else "missing"
        verdicts.append((name, CheckResult(state, problems=(why,), advice="make a task of it, or leave it out")))
    return verdicts


def _table(verdicts: Sequence[tuple[str, CheckResult]]) -> str:
    rows = [
        (label, verdict.state, *(verdict.counts.get(split, "") for split in SPLITS), verdict.provenance)
        for label, verdict in verdicts
    ]
    return tabulate(rows, ("task", "state", *SPLITS, "provenance"), tablefmt="simple")


def cache(options: argparse.Namespace) -> int:
    """`vtab-peft data cache --list` or `--prune`."""
    if options.dry_run and not options.prune:
        raise ValueError("--dry-run goes with --prune; --list changes nothing")
    found = survey(default_root())
    if options.list:
        print(_contents(found))
        return 0
    if not options.dry_run:
        prune(found)
    print(_removals(found, "would free" if options.dry_run else "freed"))
    return 0


def _contents(found: CacheReport) -> str:
    rows = [
        (
            entry.task,
            entry.form,
            size_text(entry.bytes),
            datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M"),
            "" if entry.folder is None else f"{entry.folder}{' (gone)' if entry.source_gone else ''}",
        )
        for entry in found.entries
    ]
    headers = ("task", "form", "size", "last used", "source")
    table = tabulate(rows, headers, tablefmt="simple", colalign=("left", "left", "right", "left", "left"))
    total = f"{found.root} holds {size_text(found.bytes)}; images that tasks share count once"
    free = sum(file.bytes for file in found.useless)
    hint = [f"`vtab-peft data cache --prune` would free {size_text(free)}"] if found.useless else []
    return "\n".join([*([table] if rows else []), total, *hint])


def _removals(found: CacheReport, verb: str) -> str:
    lines = []
    for why, text in REASONS.items():
        files = [file for file in found.useless if file.why == why]
        if files:
            lines.append(f"{size_text(sum(file.bytes for file in files))} in {pluralize(len(files), 'file')}: {text}")
    gone = [f"  {entry.task}: {entry.folder}" for entry in found.entries if entry.source_gone]
    if found.waiting:
        lines.append(
            f"kept: {size_text(found.waiting)} that no task names yet, for a day: they may be of a running build"
        )
    total = size_text(sum(file.bytes for file in found.useless))
    last = f"{verb} {total} in {found.root}" if found.useless else f"nothing to remove in {found.root}"
    return "\n".join([*gone, *lines, last])


def size_text(number: int) -> str:
    """Bytes for people, in powers of 1000 as disks are sold."""
    for unit, power in (("GB", 9), ("MB", 6)):
        if number >= 10**power:
            return f"{number / 10**power:,.1f} {unit}"
    return f"{number / 1000:,.1f} kB"
