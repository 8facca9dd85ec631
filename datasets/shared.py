"""Fetch VTAB-1k from copies that other projects published: task folders that need no build.

What arrives is checked before it appears: counts, labels, and that every listed image is there.  `manifest.json` then
keeps the hub's revision and a checksum of each split, which `data check --deep` compares with the images.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from .archive import examine, manifest, splits_of
from .check import checksums
from .download import ProgressFn
from .extract import SUFFIXES, extracted, is_archive
from .official import VTAB1K
from .reading import expanded, import_optional
from .task import DataError, Task


class ProgressReporter(Protocol):
    """Receives the progress of downloads and extractions."""

    def begin(self, what: str) -> ProgressFn:
        """Start a step such as `download train_32x32.mat`; return a function that takes its progress in bytes."""
        ...

    def note(self, text: str) -> None:
        """Report an event, such as a failed attempt."""
        ...


@dataclass(frozen=True)
class SharedCopy:
    """A data set of the Hugging Face hub that holds the task folders of VTAB-1k."""

    hub: str
    file: str
    """Name of the archive on the hub; empty if the hub has the folders themselves, or archives of other names."""
    provenance: str
    """`jpeg75`, or `own` for pixels that nobody has compared with those of the source."""

    @property
    def url(self) -> str:
        return f"https://huggingface.co/datasets/{self.hub}"


JPEG = SharedCopy("XiN0919/VTAB-1k", "vtab-1k.zip", "jpeg75")
"""The archive that most PEFT repositories share, published there by V-PETL Bench (its README)."""
PNG = SharedCopy("iridescentttt/vtab-1k-png", "", "own")
"""The copy in PNG that SynQT's authors published (its README)."""
COPIES = {"jpeg": JPEG, "png": PNG}
HUB_FOLDER = ".vtab-1k-hub"
"""Folder of downloads without a known file name, inside the data folder."""


def fetch_shared(
    tasks: Sequence[Task],
    data: Path,
    reporter: ProgressReporter,
    copy: SharedCopy = JPEG,
    revision: str | None = None,
) -> list[str]:
    """Fetch task folders of a shared copy to `data`/<task>; return the names of the new ones.

    Downloads are kept until all 19 tasks are present.

    revision: commit of the data set on the hub; None: the one that earlier tasks in `data` came from, else the latest.

    Raises:
        ValueError: a task is not one of VTAB-1k.
        DataError: the copy is unavailable, lacks a task or a part of it, or cannot be extracted.
    """
    for task in tasks:
        if task.suite != "vtab1k":
            raise ValueError(f"the shared archive contains the tasks of vtab1k, not {task.label}")
    data = expanded(data)
    missing = [task for task in tasks if not (data / task.name).exists()]
    if missing:
        names = [task.name for task in missing]
        place = data / copy.file if copy.file else data / HUB_FOLDER
        if not (copy.file and place.exists()):
            _download(copy, data, names, revision or _earlier_revision(data, copy))
        archives = [place] if copy.file else sorted(path for path in place.rglob("*") if is_archive(path.name))
        if not copy.file:
            _accept(copy, place, missing, data)
        for archive in archives:
            progress = reporter.begin(f"extract {archive.name}")
            with extracted(archive, partial(_below, tasks=names), partial(_forward, progress)) as folder:
                _accept(copy, folder, missing, data)
        if absent := [name for name in names if not (data / name).exists()]:
            raise DataError(f"{place} does not contain {', '.join(absent)}; remove it and fetch it again")
    if all((data / name).exists() for name in VTAB1K):
        (data / JPEG.file).unlink(missing_ok=True)
        shutil.rmtree(data / HUB_FOLDER, ignore_errors=True)
    return [task.name for task in missing]


def _forward(progress: ProgressFn, done: int) -> None:
    progress(done, None)


def _below(name: str, tasks: Sequence[str]) -> str | None:
    """Map `vtab-1k/cifar/test.txt` to `cifar/test.txt` if cifar is one of `tasks`, else to None."""
    parts = PurePosixPath(name).parts
    at = next((i for i, part in enumerate(parts) if part in VTAB1K), len(parts))
    wanted = parts[at:] and parts[at] in tasks and "__MACOSX" not in parts
    return "/".join(parts[at:]) if wanted else None


def _download(copy: SharedCopy, data: Path, names: Sequence[str], revision: str | None) -> None:
    """Download with the hub's own client, which resumes and verifies."""
    hub = import_optional("huggingface_hub", "the shared archive")
    asked: dict[str, Any] = {"repo_id": copy.hub, "repo_type": "dataset"} | ({"revision": revision} if revision else {})
    try:
        if copy.file:
            hub.hf_hub_download(**asked, filename=copy.file, local_dir=data)
        else:
            patterns = [*(f"*{name}/*" for name in names), *(f"*{suffix}" for suffix in SUFFIXES)]
            hub.snapshot_download(**asked, allow_patterns=patterns, local_dir=data / HUB_FOLDER)
    except Exception as error:  # errors of the client, of its HTTP library and of the disk
        by_hand = f", or download it with a browser and save it as {data / copy.file}" if copy.file else ""
        raise DataError(
            f"{copy.file or 'the data'} of {copy.url} is unavailable: {type(error).__name__}: {error}\n"
            f"  try again to resume{by_hand}"
        ) from error


def _accept(copy: SharedCopy, folder: Path, missing: Sequence[Task], data: Path) -> None:
    """Check the tasks in a folder, add their manifests, and move them to `data`.

    Raises:
        DataError: a task is incomplete or wrong.
    """
    for task in missing:
        direct = folder / task.name
        places = [direct] if direct.is_dir() else sorted(folder.rglob(task.name))
        found = next((path for path in places if (path / "test.txt").is_file()), None)
        if found is None or (data / task.name).exists():
            continue
        row = replace(task, folder=found)
        listings, problems = examine(row)
        if problems:
            text = "; ".join(problem.text.replace(str(found), task.name) for problem in problems)
            raise DataError(f"{copy.url}: {task.name} is not complete: {text}")
        facts = {
            "task": task.label,
            "source": copy.url,
            "revision": _downloaded_revision(copy, data),
            "provenance": copy.provenance,
            "counts": {split: len(listing.files) for split, listing in listings.items()},
            "checksums": checksums(splits_of(row, listings)),
        }
        (found / "manifest.json").write_text(json.dumps(facts, indent=1) + "\n")
        found.replace(data / task.name)


def _downloaded_revision(copy: SharedCopy, data: Path) -> str | None:
    """Return the commit that the hub's client noted beside its downloads; None for a file from elsewhere."""
    place = data if copy.file else data / HUB_FOLDER
    notes = sorted((place / ".cache" / "huggingface" / "download").rglob(f"{copy.file or '*'}.metadata"))
    lines = notes[0].read_text().split() if notes else []
    return lines[0] if lines else None


def _earlier_revision(data: Path, copy: SharedCopy) -> str | None:
    """Return the revision of the tasks in `data` that came from this copy, so that all tasks have the same."""
    for path in sorted(data.glob("*/manifest.json")):
        with suppress(DataError):
            known = manifest(path.parent)
            if known.get("source") == copy.url and known.get("revision"):
                return str(known["revision"])
    return None
