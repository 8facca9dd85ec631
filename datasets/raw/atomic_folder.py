"""Folders that appear whole or not at all, whatever kills the writer."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..atomic_io import PREFIX, is_abandoned, temporary_name


@contextmanager
def atomic_folder(target: Path, again: bool = False) -> Iterator[Path]:
    """A new folder beside `target`; it takes its name when the block ends, and vanishes when the block fails.

    What is at `target` already, perhaps made by another process in the meantime, stays, and the new folder vanishes;
    with `again` it is the old one that goes.

    Raises:
        OSError: no space, no permission, ...; nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target.parent)
    staged = _hidden(target.parent)
    try:
        staged.mkdir()
        yield staged
        os.sync()  # one for all files: a power cut must not leave empty ones under the final name
        if again and target.exists():
            _swap(staged, target)
        else:
            _rename_unless_there(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _swap(staged: Path, target: Path) -> None:
    old = _hidden(target.parent)
    try:
        target.rename(old)
        staged.rename(target)
    finally:
        if os.path.lexists(old) and not target.exists():
            old.rename(target)
        _remove(old)


def _rename_unless_there(staged: Path, target: Path) -> None:
    try:
        staged.rename(target)
    except OSError:
        if not target.is_dir() or not any(target.iterdir()):
            raise


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _hidden(folder: Path) -> Path:
    return folder / temporary_name()


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder`."""
    for path in folder.glob(f"{PREFIX}*-*-*"):
        ours = path.is_dir() and path.name.split("-")[-2].isdecimal()
        if ours and is_abandoned(path.name, _last_write(path)):
            shutil.rmtree(path, ignore_errors=True)  # another process may be removing it as well


def _last_write(folder: Path) -> float:
    """Of the folder and all folders in it; a folder's time changes with every file that is added."""
    times = [0.0]
    for place, _, _ in os.walk(folder):
        try:
            times.append(os.stat(place).st_mtime)  # noqa: PTH116 - `os.walk` yields texts
        except FileNotFoundError:
            continue
    return max(times)
