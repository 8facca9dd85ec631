"""The verb `verify`: every stored result against all that can be known of it, and the results folder as a whole."""

import argparse
import hashlib
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from safetensors import SafetensorError, safe_open

from ...datasets.atomic_io import PREFIX, is_abandoned
from ...datasets.cache import array_files, default_root
from ..execution.locks import current
from ..reporting.wording import pluralize
from ..spec import RunSpec
from ..storage.json_io import BROKEN, StoreError
from ..storage.store import Store

DERIVED = (".md", ".csv", ".tex")
"""Derived files that are the same bytes everywhere; figures depend on matplotlib's version."""
BESIDE = (".npz", ".safetensors")


def verify(options: argparse.Namespace) -> int:
    """`vtab-peft verify`: changes nothing; exit status 1 when something is wrong.

    Raises:
        ValueError: there is no such results folder.
    """
    store = Store(options.results)
    store.require_results_folder()
    labels = _labels_by_data(default_root())
    paths = sorted((store.root / "runs").rglob("*.json"))
    paths = [path for path in paths if not path.name.startswith(PREFIX)]
    predicted = compared = 0
    problems: list[str] = []
    for path in paths:
        found, seen = check_run(store, path, labels)
        problems += [f"{path}: {text}" for text in found]
        predicted += seen >= 1
        compared += seen == 2
    sound = not problems
    problems += check_folder(store)
    if sound and (store.root / "boards").is_dir():
        problems += check_derived(store)
    for problem in problems:
        print(problem)
    print(
        f"{pluralize(len(paths), 'result')} checked, {predicted} of them with their predictions, {compared} against "
        f"the labels in this machine's cache: {pluralize(len(problems), 'problem') if problems else 'no problems'}"
    )
    return 1 if problems else 0


def check_run(store: Store, path: Path, labels: dict[tuple[str, str], Path]) -> tuple[list[str], int]:
    """What is wrong with a record; and how far it could be checked: 0 alone, 1 with predictions, 2 with labels."""
    try:
        record = store.load(path)
    except StoreError as error:
        return [str(error).partition(f"{path} ")[2] or str(error)], 0
    spec = RunSpec.from_json(record["spec"])
    problems = list(_counts(record, spec))
    if path.parent != store.folder(spec):
        problems.append(f"belongs into {store.folder(spec)}/")
    adapter = path.with_suffix(".safetensors")
    if adapter.exists() and _key_of(adapter) != record["key"]:
        problems.append("the kept adapter beside it is damaged or of another run")
    predictions = path.with_suffix(".npz")
    if not predictions.exists():
        return problems, 0
    answers = labels.get((spec.task.data, spec.split))
    try:
        with np.load(predictions) as archive:
            arrays = {name: archive[name] for name in archive.files}
        problems += _predictions(record, arrays, None if answers is None else np.load(answers))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        return [*problems, f"its predictions cannot be read: {error}"], 0
    return problems, 1 if answers is None else 2


def _counts(record: dict[str, Any], spec: RunSpec) -> Iterator[str]:
    """Numbers of a record that contradict each other."""
    result, classes, recipe = record["result"], record["facts"]["classes"], spec.recipe
    trainable, head, total = (result[f"{name}_params"] for name in ("trainable", "head", "total"))
    if trainable < 0 or head <= 0 or trainable + head > total:
        yield f"parameters contradict each other: {trainable} trainable, {head} of the head, {total} in all"
    if head % classes:
        yield f"a head of {head} parameters is none for {classes} classes"
    if (per_class := result.get("per_class_accuracy")) is not None and len(per_class) != classes:
        yield f"{len(per_class)} accuracies for {classes} classes"
    epochs = recipe.epochs + math.ceil(recipe.cooldown_epochs)
    if (losses := result.get("loss_curve")) is not None and len(losses) != epochs:
        yield f"{len(losses)} training losses for {epochs} epochs"
    for name in ("train_seconds", "eval_seconds", "images_per_second", "peak_bytes", "adapter_bytes"):
        if not result[name] >= 0:
            yield f"{name} is {result[name]}"


def _predictions(record: dict[str, Any], arrays: dict[str, np.ndarray], labels: np.ndarray | None) -> Iterator[str]:
    """Predictions against what the record says of them."""
    predictions, accuracy = arrays["predictions"], record["result"]["accuracy"]
    if hashlib.sha256(predictions.astype("<u2").tobytes()).hexdigest() != record["predictions_sha256"]:
        yield "its predictions are not those it was made with"
        return
    if predictions.max(initial=0) >= record["facts"]["classes"]:
        yield f"class {predictions.max()} is predicted, and there are {record['facts']['classes']} classes"
    right = arrays.get("correct")
    if right is not None and (len(right) != len(predictions) or not math.isclose(right.mean(), accuracy)):
        yield f"its accuracy is {accuracy}, and {right.mean()} of its predictions are marked as right"
    if labels is None:
        return
    if len(labels) != len(predictions):
        yield f"{len(predictions)} predictions for {len(labels)} images"
    elif not math.isclose((labels == predictions).mean(), accuracy):
        yield f"its accuracy is {accuracy}, and {(labels == predictions).mean()} of its predictions are right"


def check_folder(store: Store) -> Iterator[str]:
    """Files that belong to nothing."""
    root = store.root
    for path in sorted(root.rglob(f"{PREFIX}*")):
        if is_abandoned(path.name, path.stat().st_mtime):
            yield f"{path}: left by a process that was killed; the next `run` removes it"
    for path in sorted((root / "runs").rglob("*")):
        if not path.is_file() or path.name.startswith(PREFIX) or path.suffix == ".json":
            continue
        if path.suffix not in BESIDE:
            yield f"{path}: not a file of a results folder"
        elif not path.with_suffix(".json").exists():
            yield f"{path}: belongs to no result (its process was killed before the end); delete it"
    stored = {path.name.partition(".")[0] for path in (root / "runs").rglob("*.json")}
    complaints: list[str] = []
    for record in store.failures(complaints):
        if record["key"] in stored:
            yield f"{root / 'failed' / record['key']}.json: the cell has succeeded since; delete it"
    yield from complaints
    for key, claim, abandoned in current(root / "claims"):
        if abandoned:
            yield f"{root / 'claims' / key}.json: {claim} left it and runs it no more; the next `run` takes it over"
    for path in sorted(path for path in (root / "damaged").rglob("*") if path.is_file()):
        yield f"{path}: was set aside as damaged; delete it once its cell has been run again"


def check_derived(store: Store) -> Iterator[str]:
    """Tables that are not what the records say."""
    from ..reporting.report import write

    published = any((store.root / "boards").rglob("published.md"))
    with tempfile.TemporaryDirectory() as folder:
        report = write(store, Path(folder), published)
        yield from report.complaints
        for path in report.paths:
            there = store.root / path.relative_to(folder)
            if path.suffix in DERIVED and (not there.exists() or there.read_bytes() != path.read_bytes()):
                yield f"{there}: is not what the results say; `vtab-peft report` rebuilds it"


def _labels_by_data(root: Path) -> dict[tuple[str, str], Path]:
    """(data hash, split) -> labels in the cache of this machine."""
    found = {}
    for path in (root / "tasks").rglob("*.json"):
        try:
            manifest = json.loads(path.read_text())
            for split, (_, labels) in array_files(manifest, root).items():
                if labels.exists():
                    found[manifest["data"], split] = labels
        except (OSError, *BROKEN):
            continue  # `data cache` looks after it
    return found


def _key_of(adapter: Path) -> str | None:
    try:
        with safe_open(adapter, framework="numpy") as file:
            return (file.metadata() or {}).get("key")
    except (SafetensorError, OSError):
        return None
