"""The command `data compare`: tell task by task whether two copies hold the same pixels."""

import argparse
from pathlib import Path

from ...datasets.compare import SplitComparison, compare_tasks, task_folders
from ..reporting.tables import DASH
from ..reporting.text_table import text_table
from ..reporting.wording import pluralize

SHOWN = 3
"""Differing images of a split that are named (ours)."""


def compare_data(options: argparse.Namespace) -> int:
    """Print a line per task and split; return exit status 1 if anything differs.

    Raises:
        DataError: a folder is no task, or an image cannot be read.
    """
    shared, alone = task_folders(options.a, options.b)
    notes = [f"{name}: only in {folder}" for name, folder in alone]
    rows, equal = [], not alone
    for name, a, b in shared:
        for found in compare_tasks(a, b):
            equal &= found.equal
            rows.append(_row(name, found))
            for file_a, file_b in found.differing[:SHOWN]:
                notes.append(
                    f"{name}, {found.split}: {Path(file_a).relative_to(a)} is not {Path(file_b).relative_to(b)}"
                )
            if (more := len(found.differing) - SHOWN) > 0:
                notes.append(f"{name}, {found.split}: and {more:,} more")
            if more := found.images[0] - found.images[1]:
                notes.append(
                    f"{name}, {found.split}: {pluralize(abs(more), 'image')} more in {'A' if more > 0 else 'B'}"
                )
    headers = ("task", "split", "images A", "images B", "same pixels", "at the same place", "largest difference")
    print(text_table(headers, rows, "ll" + "r" * 5))
    print("\nthe same pixels and labels, in the same order" if equal else "\n".join(["", *notes]))
    return 0 if equal else 1


def _row(name: str, found: SplitComparison) -> tuple[str, ...]:
    numbers = (*found.images, found.same_pixels, found.same_place)
    return (
        name,
        found.split,
        *(f"{number:,}" for number in numbers),
        DASH if found.largest is None else str(found.largest),
    )
