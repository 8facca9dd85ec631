"""The verb `data fetch`: what tasks are made of, from its public homes, or what to put where by hand."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from tabulate import tabulate
from tqdm import tqdm

from ...datasets.download import ProgressFn
from ...datasets.fetch import Item, fetch, fetch_shared, items
from ...datasets.raw.sources import SOURCES, find_official
from ...datasets.task import DataError, Task
from ..execution.progress import advance, duration
from ..reporting.wording import pluralize
from .data import size_text

TENTHS = 10
"""Lines a file where there is no terminal (ours)."""


def fetch_data(options: argparse.Namespace) -> int:
    """`vtab-peft data fetch`: exit status 1 unless all is there in the end, 130 when stopped by Ctrl-C."""
    place = options.data if options.archive else options.raw
    if place is None or None not in (options.raw, options.data):
        raise ValueError("say `--raw FOLDER` for the original files, or `--archive --data FOLDER`, and not both")
    tasks = find_official(options.tasks, options.suite, place)
    try:
        if options.archive:
            return _shared(tasks, place, options.dry_run)
        wanted = items(tasks, place, SOURCES)
        return _plan(wanted) if options.dry_run else _fetch(wanted, place)
    except KeyboardInterrupt:
        print("\nvtab-peft: stopped; what has come is kept, and the next call goes on from there", file=sys.stderr)
        return 130


def _plan(wanted: Sequence[Item]) -> int:
    """`--dry-run`: what there is and what would be done; exit status 0."""
    rows = [
        (
            ", ".join(item.tasks),
            item.file.path,
            "unknown" if item.file.known.size is None else size_text(item.file.known.size),
            item.state,
            item.file.url,
        )
        for item in wanted
    ]
    headers = ("task", "file", "size", "state", "source")
    print(tabulate(rows, headers, tablefmt="simple", colalign=("left", "left", "right", "left", "left")))
    for item in wanted:
        if item.state in ("manual", "archive only"):
            print(item.instructions())
    known = [item.file.known.size for item in wanted if item.state == "to fetch"]
    unknown = f", and {known.count(None)} of unknown size" if None in known else ""
    files = pluralize(len(known) - known.count(None), "file")
    print(f"to fetch: {size_text(sum(bytes or 0 for bytes in known))} in {files}{unknown}")
    return 0


def _fetch(wanted: Sequence[Item], raw: Path) -> int:
    absent = [item for item in wanted if not _fetched(item)]
    if absent:
        names = ", ".join(dict.fromkeys(task for item in absent for task in item.tasks))
        print(f"vtab-peft: not all is there for {names}", file=sys.stderr)
        return 1
    print(f"all is there; next: vtab-peft data build --raw {raw} --data FOLDER")
    return 0


def _fetched(item: Item) -> bool:
    named = f"{', '.join(item.tasks)}: {item.file.path}"
    state, begun = item.state, time.monotonic()
    if state == "present":
        print(f"{named}: is there already", flush=True)
        return True
    if state in ("manual", "archive only"):
        print(item.instructions(), flush=True)
        return state == "archive only"  # which is no matter of the raw folder
    meter = Meter(sys.stderr)
    try:
        fetch(item, meter)
    except DataError as error:
        print(f"vtab-peft: {error}", file=sys.stderr, flush=True)
        return False
    finally:
        meter.close()
    print(f"{named}: in {item.folder}, after {duration(time.monotonic() - begun)}", flush=True)
    if state == "to extract":
        print(f"{item.download} is not needed any more", flush=True)
    return True


def _shared(tasks: Sequence[Task], data: Path, dry_run: bool) -> int:
    """`--archive`: the folders of the shared archive, which need no building."""
    if dry_run:
        rows = [(task.name, "present" if task.folder and task.folder.exists() else "to fetch") for task in tasks]
        print(tabulate(rows, ("task", "state"), tablefmt="simple"))
        return 0
    meter = Meter(sys.stderr)
    try:
        came = fetch_shared(tasks, data, meter)
    finally:
        meter.close()
    for task in tasks:
        print(f"{task.label}: {'' if task.name in came else 'is there already, '}{task.folder}")
    print(f"next: vtab-peft data check --suite vtab1k --data {data}")
    return 0


class Meter:
    """Bytes as they come: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.bar: tqdm | None = None

    def begin(self, what: str) -> ProgressFn:
        """Begin something; what comes back takes the bytes that are there, and all where known."""
        self.close()
        if self.stream.isatty():
            bar = self.bar = tqdm(desc=what, unit="B", unit_scale=True, leave=False, file=self.stream)
            return lambda done, total: advance(bar, done, total)
        self._line(what)
        told = 0

        def tell(done: int, total: int | None) -> None:
            nonlocal told
            tenth = TENTHS * done // total if total else 0
            if tenth > told:
                told = tenth
                self._line(f"{what}: {100 * tenth // TENTHS} % of {size_text(total or 0)}")

        return tell

    def note(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text, file=self.stream)
        else:
            self._line(text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)
