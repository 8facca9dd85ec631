"""The verb `rerun`: a stored result once more, from what its record says, and whether the number is the same."""

import argparse
import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from ...datasets.cache import CachedTask, Preprocessing
from ...datasets.task import PROCEDURAL_SUITES, SUITES
from ...datasets.tasks import find
from ..checkpoints.lookup import of_one_cell
from ..engine.numerics import Numerics
from ..execution.worker import ResolveRequest
from ..execution.worker_process import WorkerProcess
from ..plan import PlannedRun, estimate
from ..spec import RunSpec
from ..storage.json_io import BROKEN, StoreError, from_text
from ..storage.store import Store
from .messages import say, say_all, say_outcome
from .run import cached_tasks, sweep

SIGMAS = 4.0
"""Where rounding may differ (another device, processor, library or number of threads), two accuracies agree within so
many standard errors of an accuracy on that many test images (ours; the images are the same, so this is generous)."""
NUMERIC_PACKAGES = ("vtab-peft", "python", "torch", "torchvision", "timm", "peft", "numpy", "pillow")


def rerun(options: argparse.Namespace) -> int:
    """`vtab-peft rerun KEY`: exit status 1 when the number does not agree.

    Raises:
        ValueError: the key is unknown, or weights, data or method are not what the record names.
    """
    store = Store(options.results)
    record = stored(store, options.key)
    spec = RunSpec.from_json(record["spec"])
    worker = WorkerProcess(store.root, numerics_of(record, options.threads), options.plugin)
    try:
        cell = _cell(spec, record, options, worker)
        tally = sweep([cell], worker, store)
    except KeyboardInterrupt:
        return 130
    finally:
        worker.stop()
    say_outcome(tally, store)
    again = store.get(spec, complaints := [])
    say_all(complaints)
    if tally.failed or again is None:
        return 1
    if "result" not in record:
        print(f"{spec.run_id()} had failed before ({record['reason']}); now it is stored")
        return 0
    agrees, text = verdict(record, again, cell.data.counts[spec.split])
    print(f"{spec.run_id()}: {text}")
    return 0 if agrees else 1


def verdict(before: dict[str, Any], now: dict[str, Any], images: int) -> tuple[bool, str]:
    """Whether a repetition on `images` test images agrees with the record it repeats, in words."""
    accuracies = [record["result"]["accuracy"] for record in (before, now)]
    shown = f"accuracy {100 * accuracies[0]:.2f} % before, {100 * accuracies[1]:.2f} % now"
    identical = all(
        now[part] == before[part] if field is None else now[part][field] == before[part][field]
        for part, field in (("predictions_sha256", None), ("result", "accuracy"), ("result", "loss_curve"))
    )
    if identical:
        return True, f"bit-identical: every prediction and every training loss ({shown})"
    if exact(before, now):
        return False, f"DIFFERS, with the same processor, threads and versions, where it should not ({shown})"
    p = accuracies[0]
    tolerance = max(SIGMAS * math.sqrt(p * (1 - p) / images), 1 / images)
    agrees = abs(accuracies[0] - accuracies[1]) <= tolerance
    where = f"{SIGMAS:g} standard errors on {images} images, {100 * tolerance:.2f} points"
    return agrees, f"{'agrees within' if agrees else 'DIFFERS by more than'} {where} ({shown})"


def exact(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two records were made under conditions that give the same bits: a CPU, and the same of everything."""

    def conditions(record: dict[str, Any]) -> tuple[Any, ...]:
        origin = record["provenance"]
        versions = {name: origin["versions"].get(name) for name in NUMERIC_PACKAGES}
        return origin["device"], {**asdict(Numerics()), **origin["numerics"]}, versions

    on_cpu = before["provenance"]["device"] == before["provenance"]["numerics"]["cpu"]
    return on_cpu and conditions(before) == conditions(now)


def stored(store: Store, text: str) -> dict[str, Any]:
    """The latest record of the cell whose key begins with `text`, or that of its failure.

    Raises:
        ValueError: there is none.
        StoreError: several begin like that, or the file is damaged.
    """
    files = sorted([*(store.root / "runs").rglob("*.json"), *(store.root / "failed").glob("*.json")])
    if not (own := of_one_cell(text, files, store.root)):
        raise ValueError(f"no result {text!r} in {store.root}/: a key is the name of a JSON file in runs/ or failed/")
    path = own[-1]  # runs/ after failed/
    if path.parent != store.root / "failed":
        record = store.get(RunSpec.from_json(store.load(path)["spec"]), complaints := [])
        say_all(complaints)
        if record is None:
            raise StoreError(f"{path} is not where its spec belongs: `vtab-peft verify` says more")
        return record
    try:
        record = from_text(path.read_text(encoding="utf-8"))
        RunSpec.from_json(record["spec"])
        return {"spec": record["spec"], "reason": str(record["reason"]), "provenance": {}, "facts": {}}
    except (OSError, *BROKEN) as error:
        raise StoreError(f"{path} cannot be read ({error}); delete it") from None


def numerics_of(record: dict[str, Any], threads: int | None) -> Numerics:
    """As recorded, but for what was asked for."""
    recorded = record["provenance"].get("numerics", {})
    known = {f.name: recorded[f.name] for f in fields(Numerics) if f.name in recorded}
    known |= {} if threads is None else {"threads": threads}
    return Numerics(**known)


def _cell(spec: RunSpec, record: dict[str, Any], options: argparse.Namespace, worker: WorkerProcess) -> PlannedRun:
    """The cell of a record, every part of it checked against what there is.  Raises `ValueError`."""
    made_by = " ".join(record["provenance"].get("argv", []))
    hint = f"; it was made by: {made_by}" if made_by else ""
    method, size = spec.method, spec.recipe.image_size
    if method.plugin and not options.plugin:
        raise ValueError(
            f"{method.spec} came from a plug-in file ({method.plugin[:12]}): give it as --plugin FILE{hint}"
        )
    request = ResolveRequest(spec.backbone.name, options.weights, size, spec.recipe.precision, [method.spec])
    backbone, (found,) = worker.describe(request)
    if backbone.ref != spec.backbone:
        raise ValueError(
            f"the weights of {spec.backbone.name} are {backbone.ref.sha256[:12]}, and the record's "
            f"{spec.backbone.sha256[:12]}: give those with --weights{hint}"
        )
    if replace(found.ref, asked=method.asked) != method:
        raise ValueError(
            f"{method.spec} is not what it was: version {found.ref.version} and the record's {method.version}, "
            f"plug-in {found.ref.plugin} and the record's {method.plugin}{hint}"
        )
    data = _data(spec, options.data, hint)
    if data.data != spec.task.data:
        raise ValueError(
            f"{data.task.label} holds other images or labels ({data.data[:12]}) than the record's "
            f"({spec.task.data[:12]}){hint}"
        )
    for note in backbone.notes:
        say(note)
    oracle = record.get("result", {}).get("oracle_accuracy") is not None
    facts = {name: fact for name, fact in record["facts"].items() if name not in ("group", "classes", "title")}
    kept = "result" in record and Store(options.results).has_adapter(spec)
    seconds = estimate(spec, found, data, backbone, oracle)
    return PlannedRun(spec, data, options.weights, replace(found, ref=method), seconds, oracle, "", facts, kept)


def _data(spec: RunSpec, folder: Path | None, hint: str) -> CachedTask:
    suite, name = spec.task.suite, spec.task.name
    if folder is None and suite not in PROCEDURAL_SUITES:
        raise ValueError(f"{suite}/{name} is read from disk: say where with --data FOLDER{hint}")
    official = suite in SUITES
    if official:
        tasks = find([name], suite, folder)
    else:
        assert folder is not None
        inside = folder / name
        tasks = find([str((inside if inside.is_dir() else folder).resolve())], None, None)
    if (tasks[0].suite, tasks[0].name) != (suite, name):
        raise ValueError(f"{folder} is {tasks[0].label}, and the record's task {suite}/{name}{hint}")
    preprocessing = Preprocessing(spec.recipe.image_size or 0, spec.interpolation, spec.recipe.framing)  # type: ignore[arg-type]
    return cached_tasks(tasks, preprocessing)[0]
