"""Write a folder that appears complete or not at all, even if the writer is killed."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..atomic_io import PREFIX, is_abandoned, temporary_name

AT_FDCWD = -100
RENAME_EXCHANGE = 2
"""Constants of Linux, renameat2(2)."""


@contextmanager
def atomic_folder(target: Path, again: bool = False) -> Iterator[Path]:
    """Yield a new folder that is renamed to `target` when the block succeeds and removed when it fails.

    If `target` exists by then, for example because another process built it, it stays and the new folder is removed.
    With `again`, the new folder replaces it.

    Raises:
        OSError: no space, no permission, ...; nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent)
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
    """Replace `target`; if this process is killed, `target` is the old folder or the new one.

    File systems that cannot exchange names have a moment without `target`, which `recover` repairs.
    """
    old = staged
    if not _exchange(staged, target):
        old = _backup(target)
        target.rename(old)
        try:
            staged.rename(target)
        except OSError:
            old.rename(target)
            raise
    _remove(old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return False where this is not possible."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def recover(target: Path) -> None:
    """Restore the old folder if a process was killed while it replaced `target`; remove it if the new one is there."""
    old = _backup(target)
    with suppress(OSError):  # read-only, or another process does the same
        if os.path.lexists(old) and os.path.lexists(target):
            _remove(old)
        elif os.path.lexists(old):
            old.rename(target)


def _backup(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _rename_unless_exists(staged: Path, target: Path) -> None:
    try:
        staged.rename(target)
    except OSError:
        if not target.is_dir() or not any(target.iterdir()):
            raise


def remove_abandoned(folder: Path) -> None:
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
