"""The identity of a leaderboard: which runs may be compared.

A leaderboard holds the test runs that share suite, backbone, recipe, normalisation, interpolation, image size and
provenance of the data.  Tasks that exist only as JPEG also join the lossless leaderboard.  Ranks and means never
cross leaderboards.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...datasets.task import SUITES
from ...datasets.tasks import suite_tasks
from ..spec import fingerprint
from ..storage.schema import Run

VTAB_GROUPS = ("natural", "specialized", "structured")


@dataclass(frozen=True, kw_only=True)
class LeaderboardId:
    """The facts that runs must share to be compared."""

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

    @classmethod
    def of(cls, run: Run) -> "LeaderboardId":
        """Return the leaderboard of a run."""
        spec = run.spec
        return cls(
            suite=spec.task.suite,
            backbone=spec.backbone.name,
            backbone_sha256=spec.backbone.sha256,
            recipe=spec.recipe.name,
            recipe_base=spec.recipe_base,
            tuned=spec.recipe.tuned,
            normalisation=run.normalisation,
            interpolation=spec.interpolation,
            image_size=spec.recipe.image_size or 0,
            provenance=spec.task.provenance,
        )

    def row_identity(self, run: Run) -> tuple[Any, ...]:
        """Return what identifies the row of a run.

        In tuned recipes the arguments and the learning rate differ from task to task, so the row is what was asked for.
        """
        method = run.spec.method
        if self.tuned:
            return method.name, run.method_spec, method.version, method.plugin
        return method.name, method.spec, method.version, method.plugin, method.args_json, run.spec.recipe.lr

    @property
    def slug(self) -> str:
        """Readable and unique name that is safe as a file name."""
        names = (
            re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[:64] for name in (self.suite, self.backbone, self.recipe)
        )
        return "--".join((*names, fingerprint(asdict(self), 6)))

    @property
    def title(self) -> str:
        """Title for readers."""
        weights = f"weights {self.backbone_sha256[:6]}"
        return one_line(f"{self.suite} · {self.backbone}, {weights} · {self.recipe}") + (
            "" if self.tuned else ", untuned"
        )


def by_leaderboard(runs: Iterable[Run]) -> list[tuple[LeaderboardId, list[Run]]]:
    """Group test runs by leaderboard, sorted; validation runs are left out.

    Runs of caltech101, which exists only as JPEG, also join the lossless leaderboard if there is one.
    """
    groups: dict[LeaderboardId, list[Run]] = defaultdict(list)
    for run in runs:
        if run.spec.split == "test":
            groups[LeaderboardId.of(run)].append(run)
    for board in [board for board in groups if board.provenance == "jpeg75"]:
        if (lossless := replace(board, provenance="lossless")) in groups:
            only_jpeg = [run for run in groups[board] if _archive_only(run)]
            groups[lossless] += only_jpeg
            if len(only_jpeg) == len(groups[board]):
                del groups[board]
    return sorted(groups.items(), key=lambda item: (item[0].suite, item[0].backbone, item[0].recipe, item[0].slug))


def table_order(suite: str) -> list[str]:
    """Return the task names of an official suite in table order; empty for other suites."""
    return list(suite_tasks(suite)) if suite in SUITES else []


def _archive_only(run: Run) -> bool:
    task = run.spec.task
    return task.name in table_order(task.suite) and suite_tasks(task.suite)[task.name].archive_only


def one_line(text: str) -> str:
    """Return text without line breaks and control characters, so that no name can break a table."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
