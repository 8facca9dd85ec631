"""The command `analyze`: angles, norms, ranks and a generalisation bound of saved adapters."""

import argparse
import json
import sys
from dataclasses import asdict

import numpy as np
import torch

from ...datasets.few_shots import drawn_for
from ...datasets.tasks import find
from ..analysis.adapters import AdapterAnalysis, analyze_adapter, analyze_weights
from ..analysis.angles import Group
from ..analysis.figures import angles, sizes
from ..analysis.report import angle_rows, bound_rows, rounded, size_rows, to_csv, to_text
from ..checkpoints.restore import TrainedModel, load_trained
from ..plan import preprocessing_of
from ..reporting.drawing import FORMATS
from ..storage.json_io import write_atomically
from .run import cached_tasks

FILES = (
    *("analysis.md", "analysis.json", "angles.csv", "sizes.csv", "bounds.csv"),
    *(f"{name}.{extension}" for name in ("angles", "updates") for extension in FORMATS),
)
"""Every file that an analysis can consist of."""


def analyze(options: argparse.Namespace) -> int:
    """Run `vtab-peft analyze RUN...`: write tables and figures, and print the tables.

    Raises:
        ValueError: the runs have different backbones, or the task's data are not those of the training.
        StoreError: there is no such run.
    """
    torch.set_num_threads(1)  # a fixed order of summation
    given = options.results, options.weights, options.plugin, options.backbone
    runs = [load_trained(text, *given) for text in options.cells]
    if len({run.spec.backbone for run in runs}) > 1:
        names = ", ".join(dict.fromkeys(run.spec.backbone.name for run in runs))
        raise ValueError(f"these runs have different backbones ({names}); analyze each backbone separately")
    images = [_training_images(run, options) for run in runs]
    weights = analyze_weights(runs[0])
    found = [analyze_adapter(run, own) for run, own in zip(runs, images, strict=True)]
    files, text = render(runs, weights, found)
    folder = options.results / "analysis" if options.to is options.default_to else options.to
    for name, content in files.items():
        write_atomically(folder / name, content)
    for name in set(FILES) - files.keys():  # an earlier analysis may have written them
        (folder / name).unlink(missing_ok=True)
    print(text, end="")
    print(f"analysis: {folder}", file=sys.stderr)
    return 0


def render(
    runs: list[TrainedModel], weights: list[Group], found: list[AdapterAnalysis]
) -> tuple[dict[str, bytes], str]:
    """Return the contents of the non-empty files among `FILES`, by name, and the text for the terminal."""
    groups = [*weights, *(group for own in found for group in own.angles)]
    learned = [size for own in found for size in own.sizes]
    angle_table, size_table = angle_rows(groups), size_rows(learned)
    bound_table = bound_rows([(own.label, own.bounds) for own in found])
    tables = {"angles": angle_table, "sizes": size_table, "bounds": bound_table}
    spec = runs[0].spec
    tasks = ", ".join(dict.fromkeys(run.spec.task.name for run in runs))
    recipes = ", ".join(dict.fromkeys(run.spec.recipe.name for run in runs))
    caption = f"{spec.backbone.name} · {tasks}"
    names = ", ".join(f"{run.spec.method.spec} {run.spec.run_id()}" for run in runs)
    shown = f"{caption} · recipe {recipes} · runs: {names}", angle_table, size_table, bound_table
    data = {
        "backbone": asdict(spec.backbone),
        "cells": [{"key": run.spec.run_id(), "spec": run.spec.to_json()} for run in runs],
        "angles": angle_table,
        "sizes": [asdict(size) for size in learned],
        "bounds": [{"of": own.label, **asdict(bound)} for own in found for bound in own.bounds],
    }
    texts = {
        "analysis.md": to_text(*shown),
        **{f"{name}.csv": to_csv(rows) for name, rows in tables.items() if rows},
        "analysis.json": json.dumps(rounded(data), indent=1, sort_keys=True) + "\n",
    }
    files = {
        **{name: text.encode() for name, text in texts.items()},
        **angles(groups, caption),
        **sizes(size_table, caption),
    }
    return files, to_text(*shown, style="simple")


def _training_images(run: TrainedModel, options: argparse.Namespace) -> np.ndarray | None:
    """Return the images a run was trained on, uint8 [n, 3, side, side]; None if no task is given."""
    if options.task is None:
        return None
    (task,) = find([options.task], options.suite, options.data)
    spec = run.spec
    data = drawn_for(spec.task.suite, *cached_tasks([task], preprocessing_of(spec)))
    if data.data != spec.task.data:
        raise ValueError(f"{task.label} has data {data.data}, but {spec.method.spec} was trained on {spec.task.data}")
    return np.concatenate([data.images(split) for split in data.training_splits(spec.split)])
