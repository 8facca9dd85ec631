"""Write a folder that appears complete or not at all, even if the writer is killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..atomic_io import PREFIX, is_abandoned, temporary_name


@contextmanager
def atomic_folder(target: Path, again: bool = False) -> Iterator[Path]:
    """Yield a new folder that is renamed to `target` when the block succeeds and removed when it fails.

    If `target` exists by then, for example because another process built it, it stays and the new folder is removed.
    With `again`, the new folder replaces it.

    Raises:
        OSError: no space, no permission, ...; nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target.parent)
    staged = target.parent / temporary_name()
    try:
        staged.mkdir()
        yield staged
        os.sync()  # one call for all files, so that a power failure leaves no empty files under the final name
        if again and target.exists():
            _swap(staged, target)
        else:
            _rename_unless_exists(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _swap(staged: Path, target: Path) -> None:
    old = target.parent / temporary_name()
    try:
        target.rename(old)
        staged.rename(target)
    finally:
        if os.path.lexists(old) and not target.exists():
            old.rename(target)
        if old.is_symlink():
            old.unlink()
        shutil.rmtree(old, ignore_errors=True)


def _rename_unless_exists(staged: Path, target: Path) -> None:
    try:
        staged.rename(target)
    except OSError:
        if not target.is_dir() or not any(target.iterdir()):
            raise


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders of killed processes from `folder`."""
    for path in folder.glob(f"{PREFIX}*-*-*"):
        ours = path.is_dir() and path.name.split("-")[-2].isdecimal()
        if ours and is_abandoned(path.name, _last_write(path)):
            shutil.rmtree(path, ignore_errors=True)  # another process may remove it at the same time


def _last_write(folder: Path) -> float:
    """Return the newest modification time in a folder tree; adding a file updates its folder."""
    times = [0.0]
    for place, _, _ in os.walk(folder):
        try:
            times.append(os.stat(place).st_mtime)  # noqa: PTH116 - `os.walk` yields texts
        except FileNotFoundError:
            continue
    return max(times)
