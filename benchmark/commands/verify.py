"""The command `verify`: check every stored run for contradictions, and the results folder for stray files."""

import argparse
import hashlib
import math
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...datasets.atomic_io import PREFIX, abandoned
from ...datasets.cache import default_root
from ...datasets.manifest import Manifest, manifests
from ...datasets.reading import InvalidFile, is_complete_array
from ..checkpoints.header import read_intact
from ..execution.locks import list_locks
from ..reporting.costs import COLUMNS
from ..reporting.origins import decoder_notes, plugin_notes
from ..reporting.wording import pluralize
from ..storage.costs import load_costs
from ..storage.json_io import StoreError
from ..storage.predictions import (
    PredictionsDamaged,
    PredictionsMissing,
    per_class_accuracy,
    read_predictions,
    wrong_logits,
)
from ..storage.schema import Run
from ..storage.shifts import load_shifts
from ..storage.store import Store

DERIVED = (".md", ".csv", ".tex")
"""Derived files whose bytes do not depend on the version of matplotlib."""
COMPANIONS = (".npz", ".safetensors")
"""Files that may be stored next to a record."""


def verify(options: argparse.Namespace) -> int:
    """Run `vtab-peft verify`; change nothing; return 1 if there is a problem.

    Raises:
        ValueError: there is no such results folder.
    """
    store = Store(options.results)
    store.require_results_folder()
    cached = [manifest for _, manifest in manifests(default_root()) if manifest]
    labels = _cached_labels(cached, default_root())
    paths = store.record_paths()
    predicted = compared = 0
    runs: list[Run] = []
    problems: list[str] = []
    for path in paths:
        try:
            runs.append(run := store.load(path))
        except InvalidFile as error:
            problems.append(f"{path}: is damaged: {error.detail}")
            continue
        except StoreError as error:
            problems.append(f"{path}: {str(error).removeprefix(f'{path} ')}")
            continue
        found, level = check_run(store, run, labels)
        problems += [f"{path}: {text}" for text in found]
        if options.strict:
            problems += [f"{path}: {text}" for text in _lacking_proof(run, level)]
        predicted += level >= 1
        compared += level == 2
    records_are_valid = not problems
    problems += check_folder(store)
    problems += _check_cache({run.spec.task.data for run in runs}, cached, default_root())
    if records_are_valid and (store.root / "boards").is_dir():
        problems += check_derived(store)
    problems = list(dict.fromkeys(problems))  # rebuilding the tables reads some files again
    for problem in problems:
        print(problem)
    for note in [*decoder_notes(runs), *plugin_notes(runs)]:
        print(f"note: {note}")
    print(
        f"{pluralize(len(paths), 'result')} checked, {predicted} with stored predictions, {compared} against cached "
        f"labels: {pluralize(len(problems), 'problem') if problems else 'no problems'}"
    )
    return 1 if problems else 0


def check_run(store: Store, run: Run, labels: dict[tuple[str, str], Path]) -> tuple[list[str], int]:
    """Return the problems of a run and the level of the check.

    Level 0: the record alone.  1: also its predictions.  2: also the labels of the task.
    """
    path, spec, problems = run.path, run.spec, list(_check_counts(run))
    if path.parent != store.folder(spec):
        problems.append(f"is in the wrong folder; move it to {store.folder(spec)}/")
    adapter = path.with_suffix(".safetensors")
    if adapter.exists() and _run_id_of(adapter) != run.run_id:
        problems.append("its adapter is damaged or belongs to another run")
    answers = labels.get((spec.task.data, spec.split))
    try:
        arrays = read_predictions(path.with_suffix(".npz"))
        problems += _check_predictions(run, arrays, None if answers is None else np.load(answers))
    except PredictionsMissing:
        return problems, 0
    except PredictionsDamaged as error:
        return [*problems, f"its predictions are damaged: {error}"], 0
    except (OSError, ValueError, EOFError) as error:
        return [*problems, f"the cached labels {answers} cannot be read: {error}"], 1
    return problems, 1 if answers is None else 2


def _lacking_proof(run: Run, level: int) -> Iterator[str]:
    """Yield what a contributed result lacks, for others to check and repeat it."""
    made = run.provenance
    if level == 0:
        yield "has no predictions beside it; commit its .npz, or make it with `vtab-peft rerun`"
    if not made.get("git_sha") or made.get("git_dirty"):
        yield "was not made from a commit; commit your changes and repeat it with `run --repeat`"
    if run.spec.method.plugin or made.get("plugins"):
        yield "was made beside plug-in files; add the method to methods/, and repeat it"
    if not run.created:
        yield "has no date"


def _check_counts(run: Run) -> Iterator[str]:
    """Yield numbers of a record that contradict each other."""
    classes, recipe = run.classes, run.spec.recipe
    trainable, head, total = run.trainable_params, run.head_params, run.total_params
    if trainable < 0 or head <= 0 or trainable + head > total:
        yield f"parameters contradict each other: {trainable} trainable, {head} in the head, {total} in total"
    if head % classes:
        yield f"a head for {classes} classes cannot have {head} parameters"
    if (per_class := run.per_class_accuracy) is not None and len(per_class) != classes:
        yield f"{len(per_class)} class accuracies for {classes} classes"
    epochs = recipe.epochs + math.ceil(recipe.cooldown_epochs)
    if (losses := run.loss_curve) is not None and len(losses) != epochs:
        yield f"{len(losses)} training losses for {pluralize(epochs, 'epoch')}"
    best, best_epoch = run.oracle_accuracy, run.oracle_epoch
    if (best is None) != (best_epoch is None) or (best_epoch or 1) > epochs:
        yield f"its best test epoch is {best_epoch} of {epochs} with accuracy {best}"
    method = run.spec.method
    if " + " not in method.spec and method.spec.partition("(")[0] != method.name:
        yield f"its method is {method.name}, and its spec names another: {method.spec}"
    for name in ("train_seconds", "eval_seconds", "images_per_second", "peak_bytes", "adapter_bytes"):
        if not getattr(run, name) >= 0:
            yield f"{name} is {getattr(run, name)}"


def _check_predictions(run: Run, arrays: dict[str, np.ndarray], labels: np.ndarray | None) -> Iterator[str]:
    """Yield contradictions between predictions, record and labels."""
    predictions, accuracy = arrays["predictions"], run.accuracy
    if hashlib.sha256(predictions.astype("<u2").tobytes()).hexdigest() != run.predictions_sha256:
        yield "its predictions do not match their hash"
        return
    if run.test_images not in (None, len(predictions)):
        yield f"{len(predictions)} predictions for {run.test_images} test images"
    classes = run.classes
    if predictions.max(initial=0) >= classes:
        yield f"predicts class {predictions.max()}, but the task has {classes} classes"
    correct = arrays.get("correct")
    if correct is not None and not (len(correct) and math.isclose(correct.mean(), accuracy)):
        share = correct.mean() if len(correct) else 0.0
        yield f"its accuracy is {accuracy}, but {share} of its predictions are marked as correct"
    logits, kept = arrays.get("logits"), arrays.get("labels")
    if logits is not None and (wrong := wrong_logits(logits, predictions, classes)):
        yield f"it has {wrong}"
    if (logits is None) != (kept is None):
        yield "it has logits without labels, or labels without logits"
    labels = kept if labels is None else labels
    if labels is None:
        return
    if len(labels) != len(predictions):
        yield f"{len(predictions)} predictions for {len(labels)} images"
    elif not math.isclose((labels == predictions).mean(), accuracy):
        yield f"its accuracy is {accuracy}, but {(labels == predictions).mean()} of its predictions are correct"
    elif correct is not None and ((labels == predictions) != correct).any():
        yield "its marks of correct predictions are those of other images"
    elif kept is not None and (kept != labels).any():
        yield "its labels are not those of the task"
    elif run.per_class_accuracy is not None and len(run.per_class_accuracy) == classes:
        by_class = np.array(per_class_accuracy(labels == predictions, labels, classes), float)  # None becomes NaN
        if not np.allclose(run.per_class_accuracy, by_class, equal_nan=True):
            yield "its class accuracies are not those of its predictions"


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted, also while another command removes some."""
    return sorted(Path(base) / name for base, _, names in os.walk(folder) for name in names)


def check_folder(store: Store) -> Iterator[str]:
    """Yield files that do not belong in the results folder."""
    root = store.root
    for path in abandoned(path for path in _files(root) if path.name.startswith(PREFIX)):
        yield f"{path}: temporary file of a killed process; the next `run` removes it"
    for path in _files(root / "runs"):
        if path.name.startswith(PREFIX) or path.suffix == ".json":
            continue
        run_id = path.name.partition(".")[0]
        if path.suffix not in COMPANIONS:
            yield f"{path}: not a file of a results folder"
        elif not (root / "claims" / f"{run_id}.json").exists() and not path.with_suffix(".json").exists():
            yield f"{path}: has no record: it was deleted, or its process was killed; delete this file too"
    stored = {path.name.partition(".")[0] for path in store.record_paths()}
    failures, problems = store.load_failures()
    for failure in failures:
        if failure.spec.run_id() in stored:
            yield f"{store.failure_path(failure.spec)}: the run has succeeded since; delete it"
    yield from problems
    yield from load_costs(root)[1]
    shifts, problems = load_shifts(root)
    yield from problems
    for run_id in shifts:
        if run_id not in stored:
            yield f"{root / 'shift' / run_id}.json: belongs to no stored run; delete it"
    locks, problems = list_locks(root / "claims")
    yield from problems
    for run_id, lock, is_abandoned in locks:
        if is_abandoned:
            yield f"{root / 'claims' / run_id}.json: abandoned by {lock}; the next `run` takes it over"
    for path in sorted(path for path in (root / "damaged").rglob("*") if path.is_file()):
        yield f"{path}: quarantined as damaged; delete it after repeating its run"


def check_derived(store: Store) -> Iterator[str]:
    """Yield tables that differ from those of the stored records."""
    from ..reporting.drawing import REPORT
    from ..reporting.markup import chosen_rows
    from ..reporting.report import write

    boards = store.root / "boards"
    published = any(boards.rglob("published.md"))
    axes = [name for name in COLUMNS if any(boards.rglob(f"accuracy_vs_{name}.svg"))]
    tables = [path.read_bytes().decode(errors="replace") for path in sorted(boards.rglob("table.tex"))]
    rows = tuple(dict.fromkeys(label for table in tables for label in chosen_rows(table)))
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = write(store, Path(folder), published, axes=axes, drawing=replace(REPORT, methods=rows))
        except ValueError:  # a chosen row has gone, or has another label
            report = write(store, Path(folder), published, axes=axes)
        yield from report.problems
        for path in report.paths:
            existing = store.root / path.relative_to(folder)
            if path.suffix in DERIVED and (not existing.exists() or existing.read_bytes() != path.read_bytes()):
                yield f"{existing}: is out of date; `vtab-peft report` rebuilds it"


def _cached_labels(cached: Sequence[Manifest], root: Path) -> dict[tuple[str, str], Path]:
    """Return (data hash, split) -> file of labels in the cache."""
    files = [
        (manifest.data, split, labels) for manifest in cached for split, (_, labels) in manifest.files(root).items()
    ]
    return {(data, split): labels for data, split, labels in files if is_complete_array(labels)}


def _check_cache(used: Collection[str], cached: Sequence[Manifest], root: Path) -> Iterator[str]:
    """Yield cached arrays of the tasks with the data hashes `used` that differ from their checksums."""
    for path in sorted({path for own in cached if own.data in used for path in own.damaged(root, full=True)}):
        yield f"{path}: cached pixels or labels are damaged; delete it, and `rerun` the runs stored since it changed"


def _run_id_of(adapter: Path) -> str | None:
    try:
        return read_intact(adapter).spec.run_id()
    except (InvalidFile, OSError):
        return None
