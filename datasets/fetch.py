"""Fetch the original files of tasks from their publishers into the raw folder: <raw>/<source.raw>/<file.path>.

Downloads are verified, archives are extracted, and files appear only when they are complete.  Where a licence or a
login prevents a download, `instructions` says what to put where.  An archive that the user puts into the raw folder
under its official name is verified and extracted like a download.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from .download import BACKOFF_S, download
from .extract import extracted, is_archive, merge
from .raw.source import RawFile, Source
from .reading import expanded
from .shared import JPEG, ProgressReporter
from .task import DataError, Task

SHARED_ONLY = RawFile("(none)", JPEG.url)
"""Placeholder for a task that cannot be built from original files."""

FetchState = Literal["present", "to extract", "to fetch", "manual", "archive only"]


@dataclass(frozen=True)
class Item:
    """An original file or folder of one or more tasks."""

    tasks: tuple[str, ...]
    folder: Path
    """Raw folder of the tasks."""
    file: RawFile

    @property
    def download(self) -> Path:
        """Path of the download: its final path, or its official name in the folder if it must be extracted."""
        return self.folder / (self._official_name if self.is_packed else self.file.path)

    @property
    def is_packed(self) -> bool:
        name = self._official_name
        return is_archive(name) and name != PurePosixPath(self.file.path).name

    @property
    def _official_name(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.file.url).path)).name

    @property
    def state(self) -> FetchState:
        if self.file is SHARED_ONLY:
            return "archive only"
        if _contains(self.folder, self.file):
            return "present"
        if self.is_packed and self.download.exists():
            return "to extract"
        return "manual" if self.file.manual else "to fetch"

    def instructions(self) -> str:
        """Return what the user has to put where, or the command that gets the task from the shared archive."""
        names = ", ".join(self.tasks)
        if self.file is SHARED_ONLY:
            command = f"vtab-peft data fetch {' '.join(self.tasks)} --archive --data FOLDER"
            return f"{names}: cannot be built from original files; `{command}` gets the task"
        also = f" (or {', '.join(self.file.instead)})" if self.file.instead else ""
        packed = f"\n  or put {self.download.name} there and fetch again: it will be verified and extracted"
        return (
            f"{names}: {self.file.path} is a manual download: {self.file.manual}\n"
            f"  from {self.file.url}\n"
            f"  to {self.folder / self.file.path}{also}" + (packed if self.is_packed else "")
        )


def items(tasks: Sequence[Task], raw: Path, sources: Mapping[str, Source]) -> list[Item]:
    """Return the original files of `tasks`, each once, in the order of the tasks.

    Raises:
        ValueError: a task has no original files.
    """
    found: dict[tuple[str, str], Item] = {}
    for task in tasks:
        if task.suite not in ("vtab1k", "fgvc"):
            raise ValueError(f"{task.label} cannot be fetched: only tasks of vtab1k and fgvc have original files")
        source = sources[task.name]
        for file in source.files or (SHARED_ONLY,):
            item = found.setdefault((source.raw, file.path), Item((), expanded(raw) / source.raw, file))
            found[source.raw, file.path] = replace(item, tasks=(*item.tasks, task.name))
    return list(found.values())


def fetch(item: Item, reporter: ProgressReporter, waits: Sequence[float] = BACKOFF_S) -> None:
    """Download and extract an item unless it is present; a file that lies there as it is published is verified.

    Raises:
        DataError: the file is unavailable, wrong, cannot be written, or is a manual download.
    """
    state = item.state
    if state in ("manual", "archive only"):
        raise DataError(item.instructions())
    if state == "to extract" or (state == "present" and not item.is_packed and item.download.is_file()):
        try:
            item.file.known.verify(item.download)
        except DataError as error:
            raise DataError(f"{error}; remove it, and fetch again or get the official file") from None
    if state == "present":
        return
    if state == "to fetch":
        _download(item, reporter, waits)
    if item.is_packed:
        _extract(item.download, item.file, reporter)
        if state == "to fetch":  # archives that the user put there stay
            item.download.unlink()


def _download(item: Item, reporter: ProgressReporter, waits: Sequence[float]) -> None:
    """Download a file; if its publisher does not answer, try its mirror."""

    def wait(seconds: float, reason: str) -> None:
        reporter.note(f"{reason}; next attempt in {seconds:.0f} s")
        time.sleep(seconds)

    file, mirror = item.file, item.file.mirror
    name = item.download.name
    try:
        progress = reporter.begin(f"download {name}")
        download(file.url, item.download, file.known, progress, waits[:1] if mirror else waits, wait)
    except DataError as error:
        if mirror is None:
            raise
        reporter.note(str(error))
        try:
            progress = reporter.begin(f"download {name} from its mirror")
            download(mirror.url, item.download, mirror.known, progress, waits, wait)
        except DataError as other:
            raise DataError(f"{error}\n{other}") from None


def _extract(archive: Path, file: RawFile, reporter: ProgressReporter) -> None:
    progress = reporter.begin(f"extract {archive.name}")
    with extracted(archive, progress=lambda done: progress(done, None)) as folder:
        if not _contains(folder, file):
            raise DataError(f"{archive} does not contain {file.path}; remove it: it is not the expected archive")
        merge(folder, archive.parent)


def _contains(folder: Path, file: RawFile) -> bool:
    return any((folder / name).exists() for name in (file.path, *file.instead))
