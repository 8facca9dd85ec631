"""What a task is made of, from its public home into the raw folder: <raw>/<source.raw>/<file.path>.

Downloads are checked, archives are unpacked, and nothing appears under its name before it is whole.  Where a licence
or a login stands before a file, `by_hand` says what to put where; an archive that somebody put into the raw folder
under the name of its address is checked and unpacked like a download.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol
from urllib.parse import unquote, urlsplit

from .download import BACKOFF_S, ProgressFn, download
from .extract import extracted, is_archive, merge
from .known_files import MIRRORS, KnownFile, known_file
from .raw.source import RawFile, Source
from .task import DataError, Task
from .vtab1k import VTAB1K

HUB = "XiN0919/VTAB-1k"
HUB_FILE = "vtab-1k.zip"
"""The shared archive as a data set of the Hugging Face hub; V-PETL Bench publishes it there (its README)."""

SHARED_ONLY = RawFile("(none)", f"https://huggingface.co/datasets/{HUB}")
"""Stands for the files of a task whose official images the original files do not tell."""

State = Literal["there", "to unpack", "to fetch", "by hand", "in the archive"]


class ProgressReporter(Protocol):
    """Whoever wants to know how it goes."""

    def begin(self, what: str) -> ProgressFn:
        """Something such as `download train_32x32.mat` begins; what is returned will be told the bytes."""
        ...

    def note(self, text: str) -> None:
        """Something happened on the way."""
        ...


@dataclass(frozen=True)
class Item:
    """A file or folder that one or more tasks are made of."""

    tasks: tuple[str, ...]
    folder: Path
    """The tasks' raw folder."""
    file: RawFile

    @property
    def download(self) -> Path:
        """Where the download goes: under its final name, or under its address's name where it is to be unpacked."""
        return self.folder / (self._published_name if self.is_packed else self.file.path)

    @property
    def is_packed(self) -> bool:
        name = self._published_name
        return is_archive(name) and name != PurePosixPath(self.file.path).name

    @property
    def _published_name(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.file.url).path)).name

    @property
    def state(self) -> State:
        if self.file is SHARED_ONLY:
            return "in the archive"
        if _is_in(self.folder, self.file):
            return "there"
        if self.is_packed and self.download.exists():
            return "to unpack"
        return "by hand" if self.file.manual else "to fetch"

    @property
    def known(self) -> KnownFile:
        return known_file(self.file)

    def by_hand(self) -> str:
        """What to put where, or where else to get the task."""
        if self.file is SHARED_ONLY:
            how = f"`vtab-peft data fetch {' '.join(self.tasks)} --archive --data FOLDER`"
            return f"{', '.join(self.tasks)}: the original files do not tell the official images; {how} gets the task"
        also = f" (or {', '.join(self.file.instead)})" if self.file.instead else ""
        placed = f"\n  or put {self.download.name} there, and fetch again: it is checked and unpacked"
        return (
            f"{', '.join(self.tasks)}: {self.file.path} has to be got by hand: {self.file.manual}\n"
            f"  from {self.file.url}\n"
            f"  so that there is {self.folder / self.file.path}{also}" + (placed if self.is_packed else "")
        )


def items(tasks: Sequence[Task], raw: Path, sources: Mapping[str, Source]) -> list[Item]:
    """What `tasks` are made of, each thing once, in the order of the tasks.

    Raises:
        ValueError: a task is not made of files that somebody publishes.
    """
    found: dict[tuple[str, str], Item] = {}
    for task in tasks:
        if task.suite not in ("vtab1k", "fgvc"):
            raise ValueError(f"{task.label} is not fetched from anywhere: only tasks of vtab1k and fgvc are")
        source = sources[task.name]
        for file in source.files or (SHARED_ONLY,):
            item = found.setdefault((source.raw, file.path), Item((), raw.expanduser() / source.raw, file))
            found[source.raw, file.path] = replace(item, tasks=(*item.tasks, task.name))
    return list(found.values())


def fetch(item: Item, reporter: ProgressReporter, waits: Sequence[float] = BACKOFF_S) -> None:
    """Get what is not there yet.

    Raises:
        DataError: it cannot be had, is not what it should be, cannot be written, or has to be got by hand.
    """
    state = item.state
    if state == "there":
        return
    if state in ("by hand", "in the archive"):
        raise DataError(item.by_hand())
    if state == "to unpack":
        try:
            item.known.verify(item.download)
        except DataError as error:
            raise DataError(f"{error}; take it away, and fetch again or get the published file") from None
    else:
        _download(item, reporter, waits)
    if item.is_packed:
        _unpack(item.download, item.file, reporter)
        if state == "to fetch":  # what somebody put there is left to them
            item.download.unlink()


def _download(item: Item, reporter: ProgressReporter, waits: Sequence[float]) -> None:
    def wait(seconds: float, why: str) -> None:
        reporter.note(f"{why}; next attempt in {seconds:.0f} s")
        time.sleep(seconds)

    name = item.download.name
    second = MIRRORS.get(item.file.url)
    try:
        progress = reporter.begin(f"download {name}")
        download(item.file.url, item.download, item.known, progress, waits[:1] if second else waits, wait)
    except DataError as error:
        if second is None:
            raise
        url, known = second
        reporter.note(str(error))
        try:
            progress = reporter.begin(f"download {name} from its second home")
            download(url, item.download, known, progress, waits, wait)
        except DataError as other:
            raise DataError(f"{error}\n{other}") from None


def _unpack(archive: Path, file: RawFile, reporter: ProgressReporter) -> None:
    progress = reporter.begin(f"unpack {archive.name}")
    with extracted(archive, progress=lambda done: progress(done, None)) as folder:
        if not _is_in(folder, file):
            raise DataError(f"{archive} does not hold {file.path}; it is not the archive that it should be: remove it")
        merge(folder, archive.parent)


def _is_in(folder: Path, file: RawFile) -> bool:
    return any((folder / name).exists() for name in (file.path, *file.instead))


def fetch_shared(tasks: Sequence[Task], data: Path, reporter: ProgressReporter) -> list[str]:
    """Put folders of the shared archive to `data`/<task>; returns the names of those that were not there before.

    The archive itself stays until all 19 tasks are there.

    Raises:
        ValueError: a task is not one of VTAB-1k.
        DataError: the archive cannot be had, does not hold a task, or cannot be unpacked.
    """
    for task in tasks:
        if task.suite != "vtab1k":
            raise ValueError(f"the shared archive holds the tasks of vtab1k, not {task.label}")
    data = data.expanduser()
    archive = data / HUB_FILE
    missing = [task.name for task in tasks if not (data / task.name).exists()]
    if missing:
        if not archive.exists():
            _from_hub(data)
        progress = reporter.begin(f"unpack {HUB_FILE}")
        with extracted(archive, lambda name: _below(name, missing), lambda done: progress(done, None)) as folder:
            absent = [name for name in missing if not (folder / name).is_dir()]
            if absent:
                raise DataError(f"{archive} does not hold {', '.join(absent)}; remove it and fetch it again")
            for name in missing:
                (folder / name).replace(data / name)
    if all((data / name).exists() for name in VTAB1K):
        archive.unlink(missing_ok=True)
    return missing


def _below(name: str, tasks: Sequence[str]) -> str | None:
    """`vtab-1k/cifar/test.txt` -> `cifar/test.txt` where cifar is one of `tasks`, else None."""
    parts = PurePosixPath(name).parts
    at = next((i for i, part in enumerate(parts) if part in VTAB1K), len(parts))
    wanted = parts[at:] and parts[at] in tasks and "__MACOSX" not in parts
    return "/".join(parts[at:]) if wanted else None


def _from_hub(data: Path) -> None:
    """Through the hub's own client, which resumes and checks by itself."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise DataError('the shared archive needs one more package: pip install "vtab-peft[data]"') from None
    try:
        hf_hub_download(repo_id=HUB, filename=HUB_FILE, repo_type="dataset", local_dir=data)
    except Exception as error:  # its own errors, those of the HTTP library below, the disk's: all end here
        raise DataError(
            f"{HUB_FILE} of https://huggingface.co/datasets/{HUB} cannot be had: {type(error).__name__}: {error}\n"
            f"  what has come is kept, try again; or get it with a browser and put it at {data / HUB_FILE}"
        ) from error
