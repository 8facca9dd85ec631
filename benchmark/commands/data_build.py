"""The command `data build`: build official tasks from the original files."""

import argparse
import sys
import time

from tqdm import tqdm

from ...datasets.raw.build import build
from ...datasets.raw.source import Source
from ...datasets.raw.sources import SOURCES, find_official
from ...datasets.task import SPLITS, DataError, Task
from ..execution.progress import advance, duration


def build_data(options: argparse.Namespace) -> int:
    """Build tasks and print one line per task; return exit status 1 if one fails."""
    tasks = find_official(options.tasks, options.suite, options.data)
    sources = {task.name: _source(task) for task in tasks}
    failed = [task for task in tasks if not _built(task, sources[task.name], options)]
    if failed:
        print(f"vtab-peft: not built: {', '.join(task.name for task in failed)}", file=sys.stderr)
    return 1 if failed else 0


def _source(task: Task) -> Source:
    if task.name not in SOURCES:
        raise ValueError(f"{task.label} cannot be built; these can: {', '.join(SOURCES)}")
    return SOURCES[task.name]


def _built(task: Task, source: Source, options: argparse.Namespace) -> bool:
    begun = time.monotonic()
    try:
        with tqdm(desc=f"building {task.name}", unit=" images", leave=False, disable=not sys.stderr.isatty()) as bar:
            built = build(source, options.raw, options.data, lambda done, of: advance(bar, done, of), options.again)
    except DataError as error:
        print(f"vtab-peft: {error}", file=sys.stderr, flush=True)
        return False
    counts = " + ".join(f"{built.counts[split]:,}" for split in SPLITS)
    how = f"built in {duration(time.monotonic() - begun)}" if built.made else "exists, unchanged"
    print(f"{task.label}: {how}: {counts} images, {built.provenance}, {built.folder}", flush=True)
    return True
