"""The command `data fetch`: download original files, or print what to download manually."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from ...datasets.download import ProgressFn
from ...datasets.fetch import Item, fetch, items
from ...datasets.raw.sources import SOURCES, find_official
from ...datasets.shared import COPIES, fetch_shared
from ...datasets.task import DataError, Task
from ..execution.progress import advance, duration
from ..reporting.text_table import text_table
from ..reporting.wording import pluralize
from .data import size_text

TENTHS = 10
"""Progress lines per file without a terminal (our choice)."""


def fetch_data(options: argparse.Namespace) -> int:
    """Fetch files; return exit status 1 if some are missing in the end, 130 after Ctrl-C."""
    if not options.archive and (options.copy != "jpeg" or options.revision):
        raise ValueError("--copy and --revision are for the shared archive; add --archive")
    place = options.data if options.archive else options.raw
    if place is None or None not in (options.raw, options.data):
        raise ValueError("use either `--raw FOLDER` for the original files, or `--archive --data FOLDER`")
    tasks = find_official(options.tasks, options.suite, place)
    try:
        if options.archive:
            return _shared(tasks, place, options)
        wanted = items(tasks, place, SOURCES)
        return _plan(wanted) if options.dry_run else _fetch(wanted, place)
    except KeyboardInterrupt:
        print("\nvtab-peft: interrupted; the next call resumes", file=sys.stderr)
        return 130


def _plan(wanted: Sequence[Item]) -> int:
    """Print the state of all files and what would be downloaded (`--dry-run`); return exit status 0."""
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
    print(text_table(headers, rows, "llrll"))
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
        print(f"vtab-peft: files are missing for {names}", file=sys.stderr)
        return 1
    print(f"all files are present; next: vtab-peft data build --raw {raw} --data FOLDER")
    return 0


def _fetched(item: Item) -> bool:
    named = f"{', '.join(item.tasks)}: {item.file.path}"
    state, begun = item.state, time.monotonic()
    if state in ("manual", "archive only"):
        print(item.instructions(), flush=True)
        return state == "archive only"  # not a file of the raw folder
    printer = ProgressPrinter(sys.stderr)
    try:
        fetch(item, printer)
    except DataError as error:
        print(f"vtab-peft: {error}", file=sys.stderr, flush=True)
        return False
    finally:
        printer.close()
    if state == "present":
        print(f"{named}: exists", flush=True)
        return True
    print(f"{named}: in {item.folder}, after {duration(time.monotonic() - begun)}", flush=True)
    if state == "to extract":
        print(f"{item.download} is no longer needed", flush=True)
    return True


def _shared(tasks: Sequence[Task], data: Path, options: argparse.Namespace) -> int:
    """Fetch task folders of the shared archive (`--archive`), which need no build."""
    if options.dry_run:
        rows = [(task.name, "present" if task.folder and task.folder.exists() else "to fetch") for task in tasks]
        print(text_table(("task", "state"), rows, "ll"))
        return 0
    printer = ProgressPrinter(sys.stderr)
    try:
        came = fetch_shared(tasks, data, printer, COPIES[options.copy], options.revision)
    finally:
        printer.close()
    for task in tasks:
        print(f"{task.label}: {'' if task.name in came else 'exists: '}{task.folder}")
    print(f"next: vtab-peft data check --suite vtab1k --data {data}")
    return 0


class ProgressPrinter:
    """Shows bytes as a bar on a terminal, and as occasional lines elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.bar: tqdm | None = None

    def begin(self, what: str) -> ProgressFn:
        """Start a step; return a function that takes (bytes done, bytes in all if known)."""
        self.close()
        if self.stream.isatty():
            bar = self.bar = tqdm(desc=what, unit="B", unit_scale=True, leave=False, file=self.stream)
            return lambda done, total: advance(bar, done, total)
        self._line(what)
        printed = 0

        def report(done: int, total: int | None) -> None:
            nonlocal printed
            tenth = TENTHS * done // total if total else 0
            if tenth > printed:
                printed = tenth
                self._line(f"{what}: {100 * tenth // TENTHS} % of {size_text(total or 0)}")

        return report

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
