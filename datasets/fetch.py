"""Fetch the original files of tasks from their publishers into the raw folder: <raw>/<source.raw>/<file.path>.

Downloads are verified, archives are extracted, and files appear only when they are complete.  Where a licence or a
login prevents a download, `instructions` says what to put where.  An archive that the user puts into the raw folder
under its official name is verified and extracted like a download.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol
from urllib.parse import unquote, urlsplit

from .download import BACKOFF_S, ProgressFn, download
from .extract import extracted, is_archive, merge
from .official import VTAB1K
from .raw.source import RawFile, Source
from .reading import import_optional
from .task import DataError, Task

HUB = "XiN0919/VTAB-1k"
HUB_FILE = "vtab-1k.zip"
"""The shared archive as a data set of the Hugging Face hub, published there by V-PETL Bench (its README)."""

SHARED_ONLY = RawFile("(none)", f"https://huggingface.co/datasets/{HUB}")
"""Placeholder for a task that cannot be built from original files."""

FetchState = Literal["present", "to extract", "to fetch", "manual", "archive only"]


class ProgressReporter(Protocol):
    """Receives the progress of downloads and extractions."""

    def begin(self, what: str) -> ProgressFn:
        """Start a step such as `download train_32x32.mat`; return a function that takes its progress in bytes."""
        ...

    def note(self, text: str) -> None:
        """Report an event, such as a failed attempt."""
        ...


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
            item = found.setdefault((source.raw, file.path), Item((), raw.expanduser() / source.raw, file))
            found[source.raw, file.path] = replace(item, tasks=(*item.tasks, task.name))
    return list(found.values())


def fetch(item: Item, reporter: ProgressReporter, waits: Sequence[float] = BACKOFF_S) -> None:
    """Download and extract an item unless it is present.

    Raises:
        DataError: the file is unavailable, wrong, cannot be written, or is a manual download.
    """
    state = item.state
    if state == "present":
        return
    if state in ("manual", "archive only"):
        raise DataError(item.instructions())
    if state == "to extract":
        try:
            item.file.known.verify(item.download)
        except DataError as error:
            raise DataError(f"{error}; remove it, and fetch again or get the official file") from None
    else:
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


def fetch_shared(tasks: Sequence[Task], data: Path, reporter: ProgressReporter) -> list[str]:
    """Extract folders of the shared archive to `data`/<task>; return the names of the new ones.

    The archive itself is kept until all 19 tasks are present.

    Raises:
        ValueError: a task is not one of VTAB-1k.
        DataError: the archive is unavailable, lacks a task, or cannot be extracted.
    """
    for task in tasks:
        if task.suite != "vtab1k":
            raise ValueError(f"the shared archive contains the tasks of vtab1k, not {task.label}")
    data = data.expanduser()
    archive = data / HUB_FILE
    missing = [task.name for task in tasks if not (data / task.name).exists()]
    if missing:
        if not archive.exists():
            _from_hub(data)
        progress = reporter.begin(f"extract {HUB_FILE}")
        with extracted(archive, lambda name: _below(name, missing), lambda done: progress(done, None)) as folder:
            absent = [name for name in missing if not (folder / name).is_dir()]
            if absent:
                raise DataError(f"{archive} does not contain {', '.join(absent)}; remove it and fetch it again")
            for name in missing:
                (folder / name).replace(data / name)
    if all((data / name).exists() for name in VTAB1K):
        archive.unlink(missing_ok=True)
    return missing


def _below(name: str, tasks: Sequence[str]) -> str | None:
    """Map `vtab-1k/cifar/test.txt` to `cifar/test.txt` if cifar is one of `tasks`, else to None."""
    parts = PurePosixPath(name).parts
    at = next((i for i, part in enumerate(parts) if part in VTAB1K), len(parts))
    wanted = parts[at:] and parts[at] in tasks and "__MACOSX" not in parts
    return "/".join(parts[at:]) if wanted else None


def _from_hub(data: Path) -> None:
    """Download the shared archive with the hub's own client, which resumes and verifies."""
    hub = import_optional("huggingface_hub", "the shared archive")
    try:
        hub.hf_hub_download(repo_id=HUB, filename=HUB_FILE, repo_type="dataset", local_dir=data)
    except Exception as error:  # errors of the client, of its HTTP library and of the disk
        raise DataError(
            f"{HUB_FILE} of https://huggingface.co/datasets/{HUB} is unavailable: {type(error).__name__}: {error}\n"
            f"  try again to resume, or download it with a browser and save it as {data / HUB_FILE}"
        ) from error
