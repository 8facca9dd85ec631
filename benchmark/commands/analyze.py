"""The verb `analyze`: what the saved adapters of trained cells say of angles, norms, ranks and a bound."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ...datasets import cache
from ...datasets.cache import Preprocessing
from ...datasets.tasks import find
from ..analysis.adapters import CellAnalysis, analyze_cell, analyze_weights
from ..analysis.angles import Group
from ..analysis.figures import angles, sizes
from ..analysis.report import angle_rows, bound_rows, rounded, size_rows, to_csv, to_markdown
from ..checkpoints.restore import TrainedModel, load_trained
from ..storage.json_io import write_atomically

FILES = (
    *("analysis.md", "analysis.json", "angles.csv", "sizes.csv", "bounds.csv"),
    *("angles.svg", "angles.png", "updates.svg", "updates.png"),
)
"""All that an analysis may be made of; which of them depends on the cells."""


def analyze(options: argparse.Namespace) -> int:
    """`vtab-peft analyze KEY_OR_PATH...`: write tables and figures, print the tables.

    Raises:
        ValueError: cells of different backbones, or data that they were not trained on.
        StoreError: there is no such cell.
    """
    torch.set_num_threads(1)  # the same sums in the same order
    cells = [load_trained(text, options.results, options.weights, options.plugin) for text in options.cells]
    if len({cell.spec.backbone for cell in cells}) > 1:
        names = ", ".join(dict.fromkeys(cell.spec.backbone.name for cell in cells))
        raise ValueError(f"these cells were trained on different backbones ({names}); analyze those of each apart")
    images = [_training_images(cell, options) for cell in cells]
    weights = analyze_weights(cells[0])
    found = [analyze_cell(cell, seen) for cell, seen in zip(cells, images, strict=True)]
    files = render(cells, weights, found)
    for name, content in files.items():
        write_atomically(options.to / name, content)
    for name in FILES:
        if name not in files:  # of an earlier analysis, of other cells
            (options.to / name).unlink(missing_ok=True)
    print(files["analysis.md"].decode(), end="")
    print(f"analysis: {options.to}", file=sys.stderr)
    return 0


def render(cells: list[TrainedModel], weights: list[Group], found: list[CellAnalysis]) -> dict[str, bytes]:
    """Those of `FILES` that have something to say, by name."""
    groups = [*weights, *(group for cell in found for group in cell.angles)]
    learned = [size for cell in found for size in cell.sizes]
    angle_table, size_table = angle_rows(groups), size_rows(learned)
    bound_table = bound_rows([(cell.label, cell.bounds) for cell in found])
    tables = {"angles": angle_table, "sizes": size_table, "bounds": bound_table}
    spec = cells[0].spec
    tasks = ", ".join(dict.fromkeys(cell.spec.task.name for cell in cells))
    recipes = ", ".join(dict.fromkeys(cell.spec.recipe.name for cell in cells))
    caption = f"{spec.backbone.name} · {tasks}"
    keys = ", ".join(f"{cell.spec.method.spec} {cell.spec.run_id()}" for cell in cells)
    heading = [f"{caption} · recipe {recipes} · cells: {keys}"]
    data = {
        "backbone": asdict(spec.backbone),
        "cells": [{"key": cell.spec.run_id(), "spec": cell.spec.to_json()} for cell in cells],
        "angles": angle_table,
        "sizes": [asdict(size) for size in learned],
        "bounds": [{"of": cell.label, **asdict(bound)} for cell in found for bound in cell.bounds],
    }
    figures = {"angles": angles(groups, caption), "updates": sizes(size_table, caption)}
    texts = {
        "analysis.md": to_markdown(heading, angle_table, size_table, bound_table),
        **{f"{name}.csv": to_csv(rows) for name, rows in tables.items() if rows},
        "analysis.json": json.dumps(rounded(data), indent=1, sort_keys=True) + "\n",
    }
    return {
        **{name: text.encode() for name, text in texts.items()},
        **{f"{name}.{kind}": content for name, kinds in figures.items() for kind, content in kinds.items()},
    }


def _training_images(cell: TrainedModel, options: argparse.Namespace) -> np.ndarray | None:
    """uint8 [n, 3, side, side] of the images that the cell was trained on; None where no task is given."""
    if options.task is None:
        return None
    (task,) = find([options.task], options.suite, options.data)
    recipe, spec = cell.spec.recipe, cell.spec
    framing = Preprocessing(cell.backbone.image_size, spec.interpolation, recipe.framing)  # pyright: ignore[reportArgumentType]
    data = cache.cached(task, framing, cache.default_root()) or cache.build(task, framing, cache.default_root())
    if data.data != spec.task.data:
        raise ValueError(
            f"{task.label} has the data {data.data}, but {spec.method.spec} was trained on {spec.task.data}"
        )
    splits: list[Any] = ["train", "val"] if spec.split == "test" else ["train"]
    return np.concatenate([data.images(split) for split in splits])
