"""The commands `data check`, `data status` and `data cache`."""

import argparse
from collections.abc import Sequence
from datetime import datetime

from ...datasets.cache import default_root
from ...datasets.cache_report import CacheReport, Reason, prune, survey
from ...datasets.check import CheckResult, check
from ...datasets.importing import IMAGE_FOLDER
from ...datasets.raw.atomic_folder import remove_abandoned
from ...datasets.reading import expanded
from ...datasets.task import SPLITS
from ...datasets.tasks import find_valid
from ..reporting.text_table import text_table
from ..reporting.wording import pluralize

REASONS: dict[Reason, str] = {
    "unfinished": "left by killed builds",
    "damaged": "unreadable manifests",
    "source gone": "of tasks whose folder is gone",
    "unnamed": "arrays that no task uses",
}


def check_data(options: argparse.Namespace) -> int:
    """Print one line per task and all problems and warnings; return exit status 1 if there are any."""
    results = _check_tasks(options, options.deep)
    print(_table(results))
    for label, result in results:
        for problem in result.problems:
            print(f"{label}: {problem}")
        if result.state != "found":
            print(f"{label}: {result.advice}")
        for note in result.notes:
            print(f"{label}: warning: {note}")
    return 0 if all(result.state == "found" and not result.notes for _, result in results) else 1


def status(options: argparse.Namespace) -> int:
    """Print the table of `data check` without reasons; return exit status 0."""
    results = _check_tasks(options, deep=False)
    print(_table(results))
    ready = sum(result.state == "found" for _, result in results)
    print(
        f"{ready} of {len(results)} can be used"
        + ("" if ready == len(results) else "; `data check` prints the reasons")
    )
    return 0


def _check_tasks(options: argparse.Namespace, deep: bool) -> list[tuple[str, CheckResult]]:
    """Return the label (or the path, if it is not a task) and the check result of each task."""
    if options.data is not None:
        remove_abandoned(options.data)
    tasks, refused = find_valid(options.folders or options.tasks, options.suite, options.data)
    results = [(task.label, check(task, deep)) for task in tasks]
    for name, why in refused.items():
        state = "wrong" if expanded(name.removeprefix(IMAGE_FOLDER)).is_dir() else "missing"
        results.append((name, CheckResult(state, problems=(why,), advice="correct it, or remove it from --tasks")))
    return results


def _table(results: Sequence[tuple[str, CheckResult]]) -> str:
    rows = [
        (label, result.state, *(result.counts.get(split, "") for split in SPLITS), result.provenance)
        for label, result in results
    ]
    return text_table(("task", "state", *SPLITS, "provenance"), rows, "ll" + "r" * len(SPLITS) + "l")


def cache(options: argparse.Namespace) -> int:
    """Print the content of the cache (`--list`), or remove useless files (`--prune`)."""
    if options.dry_run and not options.prune:
        raise ValueError("--dry-run requires --prune; --list changes nothing")
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
    table = text_table(headers, rows, "llrll")
    total = f"{found.root} has {size_text(found.bytes)}; shared images count once"
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
            f"kept: {size_text(found.waiting)} without a task, younger than a day (perhaps of a running build)"
        )
    total = size_text(sum(file.bytes for file in found.useless))
    last = f"{verb} {total} in {found.root}" if found.useless else f"nothing to remove in {found.root}"
    return "\n".join([*gone, *lines, last])


def size_text(number: int) -> str:
    """Format bytes in powers of 1000."""
    for unit, power in (("GB", 9), ("MB", 6)):
        if number >= 10**power:
            return f"{number / 10**power:,.1f} {unit}"
    return f"{number / 1000:,.1f} kB"
