"""References for the official splits (tests/golden/splits/README.md).

They are digests of the released lists, the lists themselves if they are beside the checkout, and the raw rows of tasks
with numbered examples.
"""

import csv
import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "golden" / "splits"
RELEASED = Path(__file__).parents[3] / "shared" / "reference" / "vtab_trainval_splits_VPT.json"
"""The licence of the lists (CC BY-NC) allows their use for verification, but not as part of the project."""


def digest(names: Iterable[str]) -> str:
    """Return the SHA-256 of the sorted names, one a line."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def released_digests(task: str) -> dict[str, str]:
    """Return the digests of the released train800 and val200, by `train` and `val`."""
    return json.loads((FOLDER / "released_digests.json").read_text())[task]


def released_lists(task: str) -> dict[str, list[str]]:
    """Return the released train800 and val200, by `train` and `val`; skip the test if they are absent.

    `task` is the key used there, such as `resisc45` or `kitti(task="closest_vehicle_distance")`.
    """
    if not RELEASED.exists():
        pytest.skip(f"the released lists are not beside the checkout ({RELEASED})")
    return json.loads(RELEASED.read_text())[task]


def official_rows(task: str) -> dict[str, list[tuple[str, int]]]:
    """Return (raw split, row) of train800 and val200 in official order, for tasks with numbered examples."""
    rows: dict[str, list[tuple[str, int]]] = {"train": [], "val": []}
    with gzip.open(FOLDER / "index_rows.csv.gz", "rt", newline="") as file:
        for line in csv.DictReader(file):
            if line["task"] == task:
                rows[line["split"]].append((line["raw_split"], int(line["row"])))
    return rows
