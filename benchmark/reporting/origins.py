"""Notes on what the tables would hide: tasks with the same data, images of an older Pillow, and plug-in files."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...datasets.first_of import first_of
from ..escaping import one_line
from ..storage.schema import Run
from .wording import pluralize

TaskId = tuple[str, int, str]
"""Name, version and data hash, as `Run.task_id`."""
SHOWN = 10
"""Runs that a note names (our choice)."""


@dataclass(frozen=True)
class OlderDecoder:
    """Runs of a task whose images an older Pillow decoded than those of other runs with the same preprocessing."""

    task: str
    older: str
    newest: str
    runs: tuple[Run, ...]


def older_decoders(runs: Iterable[Run]) -> list[OlderDecoder]:
    """Group runs by images and preprocessing; return those of all but the newest version of Pillow in a group.

    Versions decode JPEG files and resize photos differently, which no run ID contains.  Runs without a recorded version
    are left out.
    """
    groups: dict[tuple[Any, ...], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        recipe, version = run.spec.recipe, _environment(run.environment)[0]
        if version:
            images = (run.spec.task.name, run.spec.task.data, recipe.image_size, recipe.framing, run.spec.interpolation)
            groups[images][version].append(run)
    found = []
    for (task, *_), by_version in sorted(groups.items(), key=lambda group: repr(group[0])):
        newest = max(by_version, key=_order)
        for version in sorted(by_version.keys() - {newest}, key=_order):
            same = tuple(sorted(by_version[version], key=lambda run: run.run_id))
            found.append(OlderDecoder(one_line(task), one_line(version), one_line(newest), same))
    return found


def decoder_notes(runs: Iterable[Run]) -> list[str]:
    """Return a sentence on each task with images of an older Pillow, with the IDs of its runs."""
    return [
        f"{found.task}: Pillow {found.older} decoded the images of {pluralize(len(found.runs), 'run')}, and "
        f"{found.newest} those of others; pixels of photos may differ: {_named(found.runs)}"
        for found in older_decoders(runs)
    ]


def same_data_notes(labels: Mapping[TaskId, str]) -> list[str]:
    """Return a sentence on tasks of a leaderboard with the same data, such as a folder that was renamed or imported.

    labels: of each task, its label in the tables.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for (_, _, data), label in labels.items():
        groups[data].append(label)
    return [
        f"tasks {' and '.join(same)} have the same images and labels, which means over tasks count {len(same)} times"
        for same in groups.values()
        if len(same) > 1
    ]


def plugin_notes(runs: Iterable[Run]) -> list[str]:
    """Return a sentence on each set of plug-in files that were loaded while other methods ran, with those runs."""
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if files := _other_plugins(run):
            groups[files].append(run)
    return [
        f"methods ran while a plug-in was loaded that does not define them and may have changed their results "
        f"({', '.join(files)}): {_titles(beside)}, "
        f"{pluralize(len(beside), 'run')}: {_named(sorted(beside, key=lambda run: run.run_id))}"
        for files, beside in sorted(groups.items())
    ]


def _other_plugins(run: Run) -> tuple[str, ...]:
    """Return names and hashes of the plug-in files that were loaded and define neither method nor backbone of the run.

    The hash of a backbone's weights covers its file.
    """
    files, own = _environment(run.environment)[1], run.spec.method.plugin
    if own and own not in [sha256 for _, sha256, _ in files]:
        return ()  # a combination of methods from several files, whose hash is that of their hashes
    others = [(file, sha256) for file, sha256, of_backbone in files if sha256 != own and not of_backbone]
    return tuple(one_line(f"{file} ({sha256[:12]})") for file, sha256 in others)


def _titles(runs: Iterable[Run]) -> str:
    return ", ".join(sorted({one_line(run.title) for run in runs}))


@lru_cache(maxsize=4096)
def _environment(text: str) -> tuple[str, tuple[tuple[str, str, bool], ...]]:
    """Return the version of Pillow, or an empty text, and the plug-in files of a provenance.

    Of each file: name, hash, and True if it defines the backbone.
    """
    origin = json.loads(text)
    files = tuple(
        (plugin["file"], plugin["sha256"], plugin.get("backbone", False)) for plugin in origin.get("plugins", [])
    )
    return origin.get("versions", {}).get("pillow", ""), files


def _order(version: str) -> tuple[tuple[int, str], ...]:
    """Sort versions by their numbers: 9.5 comes before 12.3."""
    return tuple((int(part) if part.isdecimal() else -1, part) for part in version.split("."))


def _named(runs: Sequence[Run]) -> str:
    return first_of([run.run_id for run in runs], SHOWN)
