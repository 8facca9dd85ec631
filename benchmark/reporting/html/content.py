"""The data of the page as JSON values: leaderboards, rows, runs, published numbers and environments.

Accuracies are in percent.  Shared facts are stored once: environments are numbered, and the path of a record consists
of the folders of its leaderboard, task and row.
"""

import base64
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ....datasets.task import SUITES
from ... import __version__
from ...escaping import one_line
from ...storage.schema import Run
from .. import papers
from ..costs import COLUMNS
from ..families import FAMILIES, family
from ..leaderboard_id import PROCEDURAL, distinct_titles
from ..leaderboards import Leaderboard
from ..method_evidence import load as load_evidence
from ..published import PublishedRange
from ..published_vs_measured import CAUTION, PublishedComparison, method_name
from ..significance import Significance
from ..tables import has_groups
from .agreement import disagreement
from .evidence import over_tasks, student, wilson

FIGURES = ("groups", "ranks", "curves", "shift")
"""Figures on the page; the table and the scatter show what the others do."""
MEANS = {"mean_19": "mean of 19 tasks", "mean_groups": "mean of 3 groups", "mean_5": "mean of 5 tasks"}

Plain = dict[str, Any]
"""JSON object."""


@dataclass(frozen=True)
class LeaderboardReport:
    """Everything that the report shows of one leaderboard."""

    entry: Leaderboard
    runs: Sequence[Run]
    significance: Significance
    published: PublishedComparison
    """Published numbers beside the measured ones."""
    figures: Mapping[str, bytes]
    """Name -> SVG."""


def content(parts: Sequence[LeaderboardReport], out: Path) -> Plain:
    """Return all data of the page; `out` is the folder that it lies in."""
    environments = sorted({run.environment for part in parts for run in part.runs})
    titles = distinct_titles([part.entry.id for part in parts])
    numbers = {text: number for number, text in enumerate(environments)}
    return {
        "families": [*FAMILIES, "other", "plug-in"],
        "caution": CAUTION,
        "wilson": wilson(),
        "student": student(max(len({run.spec.seed for run in part.runs}) for part in parts)),
        "environments": [_shown(json.loads(text)) for text in environments],
        "procedural": PROCEDURAL,
        "version": _version(parts),
        "leaderboards": [_leaderboard(part, title, out, numbers) for part, title in zip(parts, titles, strict=True)],
    }


def _leaderboard(part: LeaderboardReport, title: str, out: Path, environments: Mapping[str, int]) -> Plain:
    entry, identity, setup = part.entry, part.entry.id, part.entry.cost_setup
    folders, images = _folders(part.runs, out), part.significance.test_images
    means = [(name, title) for name, title in MEANS.items() if name in entry.columns]
    over_all = entry.tasks[0].label if len(entry.tasks) == 1 else f"mean of {len(entry.tasks)} tasks"
    return {
        "slug": identity.slug,
        "title": title,
        "procedural": identity.procedural,
        "official": identity.suite in SUITES and not identity.procedural,
        "epochs": median(run.spec.recipe.epochs for run in part.runs),
        "suite": one_line(identity.suite),
        "backbone": one_line(identity.backbone),
        "recipe": one_line(identity.recipe) + ("" if identity.tuned else ", untuned"),
        "facts": _facts(entry),
        "folder": folders["results"],
        "tasks": [
            {
                "name": t.label,
                "group": t.group,
                "folder": folders[t.name],
                "images": images[t.label],
            }
            for t in entry.tasks
        ],
        "groups": list(entry.groups) if has_groups(entry) else [],
        "means": means or [("mean_tasks", over_all)],
        "common": f"mean of the {len(entry.common)} that all have" if entry.common else "",
        "measures": [
            ("time (s)", True),
            ("memory (MB)", True),
            *((c.label(setup), not c.higher_is_better) for c in COLUMNS.values() if setup),
            *([] if setup else [("adapter (kB)", True)]),
        ],
        "rows": _rows(part, environments),
        "over_tasks": over_tasks(entry, part.significance),
        "published": _published(part.published),
        "disagreement": disagreement(entry, part.runs),
        "figures": {name: _packed(svg) for name, svg in part.figures.items() if name.partition("-")[0] in FIGURES},
    }


def _facts(entry: Leaderboard) -> list[tuple[str, str]]:
    identity = entry.id
    return [
        ("weights", identity.backbone_sha256[:12]),
        ("recipe", one_line(identity.recipe_base)),
        ("data", one_line(identity.provenance)),
        ("input", one_line(f"{identity.image_size} px, {identity.interpolation}, {identity.normalisation}")),
        ("epochs", entry.epochs),
        ("seeds", entry.seeds),
        *([("costs", one_line(str(entry.cost_setup)))] if entry.cost_setup else []),
        *(("note", note) for note in entry.origins),
    ]


def _folders(runs: Sequence[Run], out: Path) -> dict[str, Any]:
    """Return the path from `out` to `runs/<backbone>/<suite>` as a list under "results", and each task's folder."""
    found: dict[str, Any] = {}
    for task, folder in {run.spec.task.name: run.path.parent.parent for run in runs}.items():
        *above, name = Path(os.path.relpath(folder, out)).parts
        found |= {"results": above, task: name}
    return found


def _rows(part: LeaderboardReport, environments: Mapping[str, int]) -> list[Plain]:
    entry, rows, evidence = part.entry, [], load_evidence()
    cells: dict[Any, dict[Any, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(part.runs, key=lambda run: (run.spec.seed, run.run_id)):
        cells[entry.id.row_identity(run)][run.task_id].append(run)
    for row in entry.rows:
        by_task = cells[row["identity"]]
        name = method_name(row["spec"])
        paper = papers.load().get(name)
        rows.append(
            {
                "label": row["label"],
                "name": name,
                "paper": None if row["plugin"] or not paper else (paper.year, paper.arxiv, paper.code),
                "spec": one_line(row["spec"]),
                "args": one_line(row["args"] or "per task"),
                **{fact: row[fact] for fact in ("lr", "epochs", "method_version", "plugin", "device", "seeds")},
                "family": family(name, row["plugin"]),
                "evidence": "" if row["plugin"] or name not in evidence else str(evidence[name]),
                "folder": next(iter(by_task.values()))[0].path.parent.name,
                "params": row["trainable_params"],
                "params_with_head": row["trainable_params_with_head"],
                "std": _percent(row["std_over_seeds"]),
                "measures": [
                    _rounded(row["seconds"], 1),
                    _rounded(row["peak_memory_mb"], 1),
                    *([_rounded(row[column], 3) for column in COLUMNS] if entry.cost_setup else []),
                    *([] if entry.cost_setup else [_adapter_kb(by_task)]),
                ],
                "accuracy": [_percent(row[f"accuracy_{task.label}"]) for task in entry.tasks],
                "groups": [_percent(row[f"group_{group}"]) for group in entry.groups],
                "means": {
                    mean: _percent(row.get(mean))
                    for mean in ("mean_tasks", *MEANS, "mean_common")
                    if mean in entry.columns
                },
                "runs": [[_cell(run, environments) for run in by_task[task.task_id]] for task in entry.tasks],
            }
        )
    return rows


def _adapter_kb(by_task: Mapping[Any, Sequence[Run]]) -> float | None:
    """Return the mean size of the row's saved tensors in kB; None if a record has none."""
    sizes = [run.adapter_bytes for runs in by_task.values() for run in runs]
    return round(fmean(sizes) / 1e3, 1) if all(sizes) else None


def _packed(svg: bytes) -> str:
    return base64.b64encode(zlib.compress(svg, 9)).decode()


def _version(parts: Sequence[LeaderboardReport]) -> str:
    """Return version, and date and commit of the newest run, which are the same for the same results."""
    newest = max((run for part in parts for run in part.runs), key=lambda run: (run.created, run.run_id))
    commit = json.loads(newest.environment).get("git_sha")
    date = f"; newest run of {one_line(newest.created)[:10]}" if newest.created else ""
    return f"vtab-peft {__version__}{date}{f', at commit {one_line(str(commit))[:10]}' if date and commit else ''}."


def _cell(run: Run, environments: Mapping[str, int]) -> list[Any]:
    """Return seed, accuracy, file, seconds of training, time, and the number of the environment."""
    accuracy, seconds = round(100 * run.accuracy, 9), round(run.train_seconds, 1)
    return [run.spec.seed, accuracy, run.path.name, seconds, one_line(run.created), environments[run.environment]]


def _published(found: PublishedComparison) -> Plain:
    lines = [
        {
            "label": line.label,
            "sources": [source.source for source in line.sources],
            "columns": {
                name: [_rounded(measured, 2), *(_range(s) if s else [None] * 5)]
                for name, (measured, s) in line.columns.items()
            },
        }
        for line in found.rows
    ]
    return {"reason": found.reason, "lines": lines, "sources": [asdict(source) for source in found.sources]}


def _range(found: PublishedRange) -> list[float]:
    """Return lowest and highest accuracy, rows, and rows selected on test and not."""
    return [round(found.low, 2), round(found.high, 2), found.rows, found.on_test, found.not_on_test]


def _shown(value: Any) -> Any:
    """Return JSON values with every text on one line, without control characters."""
    if isinstance(value, dict):
        return {one_line(name): _shown(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return one_line(value) if isinstance(value, str) else value


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 9)


def _rounded(value: float | None, decimals: int) -> float | None:
    return None if value is None else round(value, decimals)
