"""The command `rerun`: repeat a stored run from its record, and check that the accuracy agrees."""

import argparse
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from ...datasets.cache import CachedTask
from ...datasets.few_shots import drawn_for, split_suite
from ...datasets.importing import IMAGE_FOLDER
from ...datasets.schema import from_values
from ...datasets.task import PROCEDURAL_SUITES, SUITES
from ...datasets.tasks import find
from ..checkpoints.lookup import files_of_run
from ..engine.numerics import Numerics
from ..execution.local_pool import local_pool
from ..execution.messages import ResolveRequest, WorkerConfig
from ..execution.pool import WorkerPool
from ..plan import PlannedRun, estimate, preprocessing_of
from ..spec import RunSpec
from ..storage.json_io import StoreError
from ..storage.schema import Failure, Run
from ..storage.store import Store
from .messages import load_latest, say_all, say_outcome
from .run import cached_tasks, sweep

SIGMAS = 4.0
"""Largest difference in standard errors of the accuracy, if device, versions or threads differ (ours)."""
NUMERIC_PACKAGES = ("vtab-peft", "python", "torch", "torchvision", "timm", "peft", "numpy", "pillow")
"""Packages whose versions can change bits."""


def rerun(options: argparse.Namespace) -> int:
    """Run `vtab-peft rerun RUN_ID`, and rebuild the report; return 1 if the accuracy does not agree.

    Raises:
        ValueError: the run ID is unknown, or weights, data or method are not those of the record.
    """
    store = Store(options.results)
    before = stored(store, options.key)
    spec, provenance = before.spec, before.provenance if isinstance(before, Run) else {}
    numerics = numerics_of(provenance, options.threads)
    pool = local_pool(WorkerConfig(store.root, numerics, options.plugin, device=options.device))
    try:
        run = _plan(before, options, pool)
        result = sweep([run], pool, store)
    finally:
        pool.stop()
    say_outcome(result, store)
    again = load_latest(store, spec)
    if result.failed or again is None:
        return 1
    from ..reporting.report import write

    write(store, store.root)
    if isinstance(before, Failure):
        print(f"{spec.run_id()}: failed before ({before.reason}), now it is stored")
        return 0
    agrees, text = verdict(before, again, run.data.counts[spec.split])
    print(f"{spec.run_id()}: {text}")
    return 0 if agrees else 1


def verdict(before: Run, now: Run, images: int) -> tuple[bool, str]:
    """Return whether a repetition agrees with the record it repeats, and the result as text.

    images: number of images behind each accuracy.
    """
    old, new = before.accuracy, now.accuracy
    shown = f"accuracy {100 * old:.2f} % before, {100 * new:.2f} % now"
    if all(getattr(before, name) == getattr(now, name) for name in ("accuracy", "loss_curve", "predictions_sha256")):
        return True, f"bit-identical: every prediction and every training loss ({shown})"
    if exact(before, now):
        return False, f"DIFFERS, although processor, threads and versions are the same ({shown})"
    tolerance = max(SIGMAS * math.sqrt(old * (1 - old) / images), 1 / images)
    agrees = abs(old - new) < tolerance or math.isclose(abs(old - new), tolerance)  # 1 - 0.998 exceeds 1 / 500
    limit = f"{SIGMAS:g} standard errors on {images} images, {100 * tolerance:.2f} points"
    return agrees, f"{'agrees within' if agrees else 'DIFFERS by more than'} {limit} ({shown})"


def exact(before: Run, now: Run) -> bool:
    """Return True if both runs come from a CPU under conditions that give equal bits."""

    def conditions(run: Run) -> tuple[Any, ...]:
        origin = run.provenance
        versions = {name: origin.get("versions", {}).get(name) for name in NUMERIC_PACKAGES}
        return origin["device"], {**asdict(Numerics()), **origin.get("numerics", {})}, versions

    on_cpu = before.provenance["device"] == before.provenance.get("numerics", {}).get("cpu")
    return on_cpu and conditions(before) == conditions(now)


def stored(store: Store, text: str) -> Run | Failure:
    """Return the latest record of the run whose ID begins with `text`, or the record of its failure.

    Raises:
        ValueError: there is none.
        StoreError: several run IDs begin with `text`, or the file is damaged.
    """
    files = sorted([*(store.root / "runs").rglob("*.json"), *(store.root / "failed").glob("*.json")])
    if not (own := files_of_run(text, files, store.root)):
        raise ValueError(f"no run {text!r} in {store.root}/; a run ID is the name of a JSON file in runs/ or failed/")
    path = own[-1]  # "runs" sorts after "failed"
    if path.parent == store.root / "failed":
        return store.load_failure_at(path)
    run = load_latest(store, store.load(path).spec)
    if run is None:
        raise StoreError(f"{path} is in the wrong folder for its spec; see `vtab-peft verify`")
    return run


def numerics_of(provenance: Mapping[str, Any], threads: int | None) -> Numerics:
    """Return the recorded numerics, with another number of threads if one is given."""
    recorded = provenance.get("numerics", {})
    known = {f.name: recorded[f.name] for f in fields(Numerics) if f.name in recorded}
    known |= {} if threads is None else {"threads": threads}
    return from_values(known, Numerics, "provenance.numerics")


def _plan(before: Run | Failure, options: argparse.Namespace, pool: WorkerPool) -> PlannedRun:
    """Return the run of a record; raise `ValueError` if weights, method or data are not those of the record."""
    spec, run = before.spec, before if isinstance(before, Run) else None
    made_by = shlex.join(run.argv) if run else ""
    hint = f"; the stored command is: {made_by}" if made_by else ""
    method, recipe = spec.method, spec.recipe
    if missing := _missing(before, options):
        raise ValueError("; ".join(missing) + hint)
    request = ResolveRequest(spec.backbone.name, options.weights, recipe.image_size, recipe.precision, [method.spec])
    backbone, (found,) = pool.resolve(request)
    if backbone.ref != spec.backbone:
        raise ValueError(
            f"weights of {spec.backbone.name} are {backbone.ref.sha256[:12]}, the record has "
            f"{spec.backbone.sha256[:12]}; give those with --weights{hint}"
        )
    if replace(found.ref, asked=method.asked) != method:
        raise ValueError(
            f"{method.spec} has changed: version {found.ref.version}, the record has {method.version}; "
            f"plug-in {found.ref.plugin}, the record has {method.plugin}{hint}"
        )
    data = _data(spec, options.data, hint)
    if data.data != spec.task.data:
        raise ValueError(
            f"{data.task.label} has other images or labels: {data.data[:12]}, the record has "
            f"{spec.task.data[:12]}{hint}"
        )
    say_all(backbone.notes)
    oracle = run is not None and run.oracle_accuracy is not None
    return PlannedRun(
        spec,
        data,
        options.weights,
        replace(found, ref=method),
        estimate(spec, found, data, backbone, oracle),
        oracle,
        facts={"tuning": run.tuning} if run and run.tuning else {},
        keep_adapter=run is not None and Store(options.results).has_adapter(spec),
        keep_logits=run is not None and Store(options.results).has_logits(spec),
        plugged_backbone=backbone.plugged,
    )


def _missing(before: Run | Failure, options: argparse.Namespace) -> list[str]:
    """Return what a record needs beside itself and the options do not give: plug-in files and data."""
    spec, plugins = before.spec, before.provenance.get("plugins", []) if isinstance(before, Run) else []
    method, (suite, _) = spec.method, split_suite(spec.task.suite)
    files = [f"{method.spec} needs its plug-in file {method.plugin[:12]}"] if method.plugin else []
    files += [f"{spec.backbone.name} needs {plugin['file']}" for plugin in plugins if plugin.get("backbone")]
    missing = [f"{file}: give it with --plugin" for file in files if not options.plugin]
    if suite not in PROCEDURAL_SUITES and options.data is None:
        missing.append(
            f"{suite}/{spec.task.name} is a task on disk: give its folder with --data FOLDER, "
            f"or with --data {IMAGE_FOLDER}FOLDER if it has class folders"
        )
    return missing


def _data(spec: RunSpec, folder: Path | None, hint: str) -> CachedTask:
    """Return the decoded task of a spec."""
    (suite, _), name = split_suite(spec.task.suite), spec.task.name
    if suite in SUITES or folder is None:
        (task,) = find([name], suite, folder)
    elif str(folder).startswith(IMAGE_FOLDER):
        (task,) = find([str(folder)], None, None)
    else:
        inside = folder / name
        (task,) = find([str((inside if inside.is_dir() else folder).resolve())], None, None)
    if (task.suite, task.name) != (suite, name):
        raise ValueError(f"{folder} is {task.label}, the record has {suite}/{name}{hint}")
    return drawn_for(spec.task.suite, cached_tasks([task], preprocessing_of(spec), full=True)[0])
