"""What the page shows, as plain data: boards, their rows and cells, published numbers, and where each number was made.

Accuracies are in percent.  What many cells share is said once: environments are numbered, and a cell's file is found
from the folders of its board, task and row.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..boards import one_line
from ..families import FAMILIES, family
from ..leaderboards import Leaderboard
from ..published_vs_measured import CAUTION, PublishedComparison, method_name
from ..significance import Significance, images_of
from ..wording import pluralize
from .evidence import over_tasks, student, wilson

MEANS = {"mean_19": "mean of 19 tasks", "mean_groups": "mean of 3 groups", "mean_5": "mean of 5 tasks"}

Plain = dict[str, Any]
"""Ready for JSON."""


@dataclass(frozen=True)
class Part:
    """A board as the report has it."""

    entry: Leaderboard
    runs: pd.DataFrame
    """Its runs, with the columns of `Store.frame`."""
    significance: Significance
    """What its differences support."""
    published: PublishedComparison
    """What papers say beside it."""
    figures: Mapping[str, bytes]
    """Name -> SVG."""


def content(parts: Sequence[Part], root: Path) -> Plain:
    """Everything; `root` is the results folder that the paths of the runs lie in."""
    environments = sorted({_origin(text)[0] for part in parts for text in part.runs["origin"]})
    places = {text: number for number, text in enumerate(environments)}
    return {
        "families": [*FAMILIES, "other", "plug-in"],
        "caution": CAUTION,
        "wilson": wilson(),
        "student": student(max(len(set(part.runs["seed"])) for part in parts)),
        "environments": [json.loads(text) for text in environments],
        "boards": [_board(part, root, places) for part in parts],
    }


def _origin(text: str) -> tuple[str, str]:
    """Circumstances that many runs share, as text, and the time, which they do not."""
    facts = json.loads(text)
    created = facts.pop("created", "")
    facts.pop("argv", None)  # a run's spec says it better
    return json.dumps(facts, sort_keys=True), created


def _board(part: Part, root: Path, places: Mapping[str, int]) -> Plain:
    entry, board = part.entry, part.entry.board
    folders = _folders(part.runs, root)
    means = [(name, title) for name, title in MEANS.items() if name in entry.columns]
    return {
        "slug": board.slug,
        "title": board.title,
        "suite": one_line(board.suite),
        "backbone": one_line(board.backbone),
        "recipe": one_line(board.recipe) + ("" if board.tuned else ", untuned"),
        "facts": _facts(entry),
        "folder": folders["board"],
        "tasks": [
            {"name": t.label, "group": t.group, "folder": folders[t.name], "images": images_of(board.suite, t.name)}
            for t in entry.tasks
        ],
        "groups": list(entry.groups),
        "means": [
            *(means or [("mean_tasks", f"mean of {pluralize(len(entry.tasks), 'task')}")]),
            *([("mean_common", f"mean of the {len(entry.common)} that all have")] if entry.common else []),
        ],
        "rows": _rows(part, places),
        "over_tasks": over_tasks(entry, part.significance),
        "published": _published(part.published),
        "figures": {name: data.decode() for name, data in part.figures.items()},
    }


def _facts(entry: Leaderboard) -> list[tuple[str, str]]:
    board = entry.board
    return [
        ("weights", board.backbone_sha256[:12]),
        ("recipe", one_line(board.recipe_base)),
        ("data", one_line(board.provenance)),
        ("input", one_line(f"{board.image_size} px, {board.interpolation}, {board.normalisation}")),
        ("seeds", entry.seeds),
    ]


def _folders(runs: pd.DataFrame, root: Path) -> dict[str, Any]:
    """`runs/<backbone>/<suite>` as a list under "board", and the name of each task's folder under the task."""
    found: dict[str, Any] = {}
    for task, path in zip(runs["task"], runs["path"], strict=True):
        *board, folder, _, _ = Path(path).relative_to(root).parts
        found |= {"board": board, task: folder}
    return found


def _rows(part: Part, places: Mapping[str, int]) -> list[Plain]:
    entry = part.entry
    by_row: dict[tuple[Any, ...], list[Plain]] = defaultdict(list)
    for run in part.runs.to_dict("records"):
        clean = {str(name): None if value != value else value for name, value in run.items()}
        by_row[entry.board.row_of(clean)].append(clean)
    rows = []
    for row in entry.rows:
        runs = sorted(by_row[row["identity"]], key=lambda run: (run["seed"], run["key"]))
        name = method_name(row["spec"])
        rows.append(
            {
                "label": row["label"],
                **{fact: one_line(str(row[fact])) for fact in ("spec", "args")},
                **{fact: row[fact] for fact in ("lr", "method_version", "plugin", "device", "seeds")},
                "family": family(name, row["plugin"]),
                "folder": Path(runs[0]["path"]).parent.name,
                "params": row["trainable_params"],
                "params_with_head": row["trainable_params_with_head"],
                "seconds": _rounded(row["seconds"], 1),
                "peak_mb": _rounded(row["peak_memory_mb"], 1),
                "std": _percent(row["std_over_seeds"]),
                "accuracy": [_percent(row[f"accuracy_{task.label}"]) for task in entry.tasks],
                "groups": [_percent(row[f"group_{group}"]) for group in entry.groups],
                "means": {
                    mean: _percent(row.get(mean))
                    for mean in ("mean_tasks", *MEANS, "mean_common")
                    if mean in entry.columns
                },
                "cells": [
                    [_cell(run, places) for run in runs if _is_of(run, task.name, task.version, task.data)]
                    for task in entry.tasks
                ],
            }
        )
    return rows


def _is_of(run: Mapping[str, Any], *task: Any) -> bool:
    return (run["task"], run["task_version"], run["data"]) == task


def _cell(run: Mapping[str, Any], places: Mapping[str, int]) -> list[Any]:
    """Seed, accuracy, file, seconds of training, when it was made, and the number of its environment."""
    environment, created = _origin(run["origin"])
    accuracy, seconds = round(100 * run["accuracy"], 3), round(run["train_seconds"], 1)
    return [run["seed"], accuracy, Path(run["path"]).name, seconds, created, places[environment]]


def _published(found: PublishedComparison) -> Plain:
    lines = [
        {
            "label": line.label,
            "sources": [source.source for source in line.sources],
            "columns": {
                name: [_rounded(measured, 2), *([round(s.low, 2), round(s.high, 2), s.rows] if s else [None] * 3)]
                for name, (measured, s) in line.columns.items()
            },
        }
        for line in found.rows
    ]
    return {"reason": found.reason, "lines": lines, "sources": [asdict(source) for source in found.sources]}


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 6)


def _rounded(value: float | None, decimals: int) -> float | None:
    return None if value is None else round(value, decimals)
