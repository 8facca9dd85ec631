"""Commit the files of a run: predictions and adapter first, then the record, without which they do not count."""

from contextlib import suppress
from pathlib import Path

from .json_io import StoreError, create_new, write_atomically
from .schema import parse_run, read_run


def commit(path: Path, record: bytes, attachments: dict[str, bytes | None]) -> None:
    """Write the attachments, then the record at `path`, unless another process stores the same repetition.

    Then the other record stays.  The attachments beside a record always belong to the same run.

    Args:
        attachments: Suffix -> content; None if the run has no such file.

    Raises:
        StoreError: The folder cannot be written; nothing of this run is left behind.
    """
    ours = {path.with_suffix(suffix): data for suffix, data in attachments.items() if data is not None}
    try:
        for suffix, data in attachments.items():
            if data is None:  # a crashed run may have left one
                path.with_suffix(suffix).unlink(missing_ok=True)
            else:
                write_atomically(path.with_suffix(suffix), data)
        created = create_new(path, record)
        for file, data in ours.items():
            if created and _content(file) != data:  # the other process has overwritten it meanwhile
                write_atomically(file, data)
    except (OSError, StoreError):
        if not path.exists():
            _remove(ours)
        raise
    if not created and read_run(path).predictions_sha256 != parse_run(record, path).predictions_sha256:
        _remove(ours)


def _remove(ours: dict[Path, bytes]) -> None:
    """Remove attachments that are still ours; another process may have replaced them."""
    for path, data in ours.items():
        with suppress(OSError):
            if _content(path) == data:
                path.unlink(missing_ok=True)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
