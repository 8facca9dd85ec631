"""What is known of the official splits: digests of the released lists, the lists themselves where they lie beside
the checkout, and the raw rows of the tasks whose examples are numbered (tests/golden/splits/README.md).
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
"""The lists' licence (CC BY-NC) lets them be used here to verify, not be part of the project."""


def digest(names: Iterable[str]) -> str:
    """Of a list as a set: SHA-256 of the sorted names, one a line."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def released_digests(task: str) -> dict[str, str]:
    """The digests of the released train800 and val200, keyed `train` and `val`; always there."""
    return json.loads((FOLDER / "released_digests.json").read_text())[task]


def released_lists(task: str) -> dict[str, list[str]]:
    """The released train800 and val200 as they were published, keyed `train` and `val`; skips where they are absent.

    `task` is the key used there, such as `resisc45` or `kitti(task="closest_vehicle_distance")`.
    """
    if not RELEASED.exists():
        pytest.skip(f"the released lists are not beside the checkout ({RELEASED})")
    return json.loads(RELEASED.read_text())[task]


def official_rows(task: str) -> dict[str, list[tuple[str, int]]]:
    """Of a task whose examples are numbered: (raw split, row) of train800 and val200, in the official order."""
    rows: dict[str, list[tuple[str, int]]] = {"train": [], "val": []}
    with gzip.open(FOLDER / "index_rows.csv.gz", "rt", newline="") as file:
        for line in csv.DictReader(file):
            if line["task"] == task:
                rows[line["split"]].append((line["raw_split"], int(line["row"])))
    return rows
