"""Boards: which runs may be compared.

A board holds the test runs that share suite, backbone, recipe, normalisation, interpolation, image size and
provenance of the data; tasks that can only be had as JPEG stand on the lossless board too.  Ranks and means never
cross boards.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pandas as pd

from ...datasets.task import SUITES
from ...datasets.tasks import suite_tasks
from ..spec import fingerprint

VTAB_GROUPS = ("natural", "specialized", "structured")
IDENTITY = ("method", "spec", "method_version", "plugin", "args", "lr")
"""What makes one row of a leaderboard."""
TUNED_IDENTITY = ("method", "asked", "method_version", "plugin")
"""The same where the recipe differs from task to task: what was asked for, whatever was chosen for each task."""

Run = dict[str, Any]
"""One row of `Store.frame`."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """What runs must share to be compared."""

    suite: str
    backbone: str
    backbone_sha256: str
    recipe: str
    recipe_base: str
    tuned: bool
    normalisation: str
    interpolation: str
    image_size: int
    provenance: str

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes one of its rows."""
        return TUNED_IDENTITY if self.tuned else IDENTITY

    def row_of(self, run: Mapping[str, Any]) -> tuple[Any, ...]:
        """The `identity` of the row that a run belongs to; None where a frame has nothing."""
        return tuple(None if run[name] != run[name] else run[name] for name in self.identity)

    @property
    def slug(self) -> str:
        """Readable, safe as a file name, and different for every board."""
        names = (
            re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[:64] for name in (self.suite, self.backbone, self.recipe)
        )
        return "--".join((*names, fingerprint(asdict(self), 6)))

    @property
    def title(self) -> str:
        weights = f"weights {self.backbone_sha256[:6]}"
        return one_line(f"{self.suite} · {self.backbone}, {weights} · {self.recipe}") + (
            "" if self.tuned else ", untuned"
        )


def boards(frame: pd.DataFrame) -> list[tuple[Board, pd.DataFrame]]:
    """The boards that the test runs of a frame make, sorted; validation runs never enter.

    caltech101 can only be had as JPEG: its runs join the lossless board too, and make no board alone beside one.
    """
    keys = [field.name for field in fields(Board)]
    parts: dict[Board, list[Run]] = defaultdict(list)
    for run in records(frame):
        if run["split"] == "test":
            parts[Board(**{key: run[key] for key in keys})].append(run)
    for board in [board for board in parts if board.provenance == "jpeg75"]:
        if (lossless := replace(board, provenance="lossless")) in parts:
            only = [run for run in parts[board] if _archive_only(run)]
            parts[lossless] += only
            if len(only) == len(parts[board]):
                del parts[board]
    ordered = sorted(parts, key=lambda board: (board.suite, board.backbone, board.recipe, board.slug))
    return [(board, pd.DataFrame(parts[board])) for board in ordered]


def records(frame: pd.DataFrame) -> list[Run]:
    """The rows of a frame in an order of their own; None where there is nothing."""
    runs = [{str(k): None if v != v else v for k, v in row.items()} for row in frame.to_dict("records")]
    return sorted(runs, key=lambda run: run["key"])


def table_order(suite: str) -> list[str]:
    """Names of an official suite's tasks in the order of its table; empty for suites that have none."""
    return list(suite_tasks(suite)) if suite in SUITES else []


def _archive_only(run: Run) -> bool:
    return run["task"] in table_order(run["suite"]) and suite_tasks(run["suite"])[run["task"]].archive_only


def one_line(text: str) -> str:
    """Text without line breaks and control characters, so that no name can break a table."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
