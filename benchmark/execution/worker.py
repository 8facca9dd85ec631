"""The process that does the work.  torch is imported here and nowhere in the parent.

A worker keeps its backbone from cell to cell and answers requests on a pipe, one at a time:

    ResolveRequest -> ("progress", (what is downloaded, 0 or 1, 1)) before and after a download, then
                ("described", (BackboneInfo, [MethodInfo])) or ("refused", message)
    PlannedRun     -> ("progress", (phase, done, of)) any number of times, then
                ("finished", RunSummary), ("failed", reason) with the traceback stored, or ("unwritable", reason)

It stores results itself, so that nothing is lost when the parent dies.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.numerics import Numerics
from ..plan import BackboneInfo, MethodInfo, PlannedRun
from ..spec import MethodRef

if TYPE_CHECKING:
    from ...methods import Method
    from ..engine.backbone import Backbone
    from ..engine.evaluate import ProgressFn

SPEED_BATCH = {"cuda": 64, "cpu": 8}
"""Images in the forward pass that is timed for estimates (ours: a second or so for ViT-B on two cores; on a GPU fewer
would time the launching of kernels)."""


@dataclass(frozen=True)
class ResolveRequest:
    """Ask what a backbone and method specs mean."""

    backbone: str
    weights: str | None
    image_size: int | None
    precision: str
    methods: Sequence[str]
    """Spec strings; `all` means every registered method."""
    all_plugged: bool = False
    """Whether everything that plug-in files register comes along."""
    variants: bool = False
    """Whether each method comes with what its `search` grid makes of it."""


@dataclass(frozen=True)
class RunSummary:
    """What the parent shows of a finished cell."""

    path: Path
    accuracy: float
    seconds: float
    images_per_second: float
    agrees: bool | None
    """For a repetition: whether it predicts exactly what the stored run did."""
    shortage: str = ""
    """How it was run in smaller parts than asked for, for lack of memory."""


class Worker:
    """State kept between requests: the last backbone."""

    def __init__(self, results: Path, numerics: Numerics, argv: list[str], plugins: Sequence[Path]) -> None:
        import torch

        from ..engine.live_model import LiveModel

        torch.set_num_threads(numerics.threads)
        self.results, self.argv, self.plugins = results, argv, plugins
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.live = LiveModel(self.device, numerics)
        self._loaded: tuple[tuple[str, str | None, int | None], Backbone] | None = None

    def backbone(
        self, name: str, weights: str | None, image_size: int | None, tell: "ProgressFn" = lambda *_: None
    ) -> "Backbone":
        from ..engine.backbone import load

        wanted = (name, weights, image_size)
        if self._loaded is None or self._loaded[0] != wanted:
            self._loaded = (wanted, load(*wanted, tell))
        return self._loaded[1]

    def describe(
        self, request: ResolveRequest, tell: "ProgressFn" = lambda *_: None
    ) -> tuple[BackboneInfo, list[MethodInfo]]:
        """tell: called before and after a download.

        Raises:
            BackboneError, ValueError: with a message for the user.
        """
        from ...methods import METHODS, default_specs, parse
        from ...methods.anatomy import FAMILIES, backbone_family
        from ...methods.base import check_backbone, missing_packages
        from ..engine.timing import device_name

        plugged = self.load_plugins()
        named = [spec for spec in request.methods if spec != "all"] + (plugged if request.all_plugged else [])
        asked = [parse(spec) for spec in named]  # a wrong name is refused before weights are looked for
        backbone = self.backbone(request.backbone, request.weights, request.image_size, tell)
        here = backbone_family(backbone.vit)
        every = default_specs() if "all" in request.methods else []
        fitting = [parse(name) for name in every if here in METHODS[name].backbones]
        methods = list({method.spec(): method for method in (*fitting, *asked)}.values())
        for method in methods:
            check_backbone(method, backbone.vit)
        notes = list(backbone.notes)
        if left_out := len(every) - len(fitting):
            notes.append(f"`all` leaves out what is not made for {FAMILIES[here]}: {left_out} of {len(every)} methods")
        for package in sorted(missing_packages()) if every else ():
            needing = [name for name, cls in METHODS.items() if cls.needs == package and not cls.stands_for_many]
            if names := ", ".join(name for name in needing if here in METHODS[name].backbones):
                hint = f"package {package} is missing; pip install 'vtab-peft[{package}]'"
                notes.append(f"`all` leaves out {names}: {hint}")
        info = BackboneInfo(
            ref=backbone.ref,
            weights=request.weights,
            mean=backbone.mean,
            std=backbone.std,
            image_size=backbone.image_size,
            notes=tuple(notes),
            seconds_per_image=self._seconds_per_image(backbone, request.precision),
            device=device_name(self.device),
            on_gpu=self.device.type == "cuda",
        )
        infos = []
        for method in methods:
            variants = tuple(_info(v, backbone) for v in method.variants()) if request.variants else ()
            infos.append(replace(_info(method, backbone), variants=variants))
        return info, infos

    def load_plugins(self) -> list[str]:
        """Names of the methods that the plug-in files register."""
        from ...methods.plugin import load_plugin

        return [name for path in self.plugins for name in load_plugin(path)]

    def run(self, cell: PlannedRun, connection: Connection) -> RunSummary:
        from ...methods import parse
        from ...methods.plugin import plugin_sha256
        from ..checkpoints.adapter_checkpoint import pack
        from ..engine.timing import provenance
        from ..engine.trainer import train_and_evaluate
        from ..storage.store import Store

        self.load_plugins()  # a worker that replaces a lost one has not described anything
        spec, store = cell.spec, Store(self.results)
        backbone = self.backbone(spec.backbone.name, cell.weights, spec.recipe.image_size)
        if backbone.ref != spec.backbone:
            raise RuntimeError(f"the weights of {spec.backbone.name} changed since the plan was made")
        method = parse(spec.method.spec)
        if plugin_sha256(method) != spec.method.plugin:
            raise RuntimeError(f"the plug-in file of {spec.method.spec} changed since the plan was made")
        earlier = store.get(spec, [])  # what was damaged has been set aside and named by the agenda
        repetition = store.next_repetition(spec)  # which one this is, whatever others store meanwhile
        kept: list[bytes] = []
        result, predictions = train_and_evaluate(
            spec,
            method,
            backbone,
            cell.data,
            self.live,
            lambda *progress: connection.send(("progress", progress)),
            evaluate_each_epoch=cell.oracle,
            on_trained=lambda trained: (
                kept.append(pack(spec, trained, cell.data.task.class_names)) if cell.keep_adapter else None
            ),
        )
        facts = {"group": cell.data.task.group, "classes": cell.data.classes, "title": cell.method.title, **cell.facts}
        record = {
            "result": result.to_json(),
            "facts": facts,
            "provenance": provenance(self.device, self.argv, self.live.numerics),
        }
        correct = predictions == cell.data.labels(spec.split)
        path = store.put(spec, record, predictions, correct, kept[0] if kept else None, repetition)
        stored = store.load(path)
        agrees = None if earlier is None else earlier["predictions_sha256"] == stored["predictions_sha256"]
        seconds = result.train_seconds + result.eval_seconds
        return RunSummary(path, result.accuracy, seconds, result.images_per_second, agrees, self.live.oom_summary)

    def _seconds_per_image(self, backbone: "Backbone", precision: str) -> float:
        import copy

        import torch

        from ..engine.fast_path import make_fast
        from ..engine.timing import now

        vit = copy.deepcopy(backbone.vit).to(self.device).eval()
        make_fast(vit, precision, self.device.type)
        batch = SPEED_BATCH[self.device.type]
        images = torch.zeros(batch, 3, backbone.image_size, backbone.image_size, device=self.device)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            vit(images)  # the first pass also sets things up
            started = now(self.device)
            vit(images)
        return (now(self.device) - started) / batch


def _info(method: "Method", backbone: "Backbone") -> MethodInfo:
    from ...methods.plugin import plugin_sha256

    return MethodInfo(
        ref=MethodRef(
            name=method.spec().partition("(")[0],
            args=method.args(),
            version=method.version,
            plugin=plugin_sha256(method),
            spec=method.spec(),
        ),
        title=method.title,
        lr=method.lr,
        frozen_features=method.frozen_features,
        trainable_params=method.expected_params(backbone.vit),
    )


def serve(connection: Connection, results: Path, numerics: Numerics, argv: list[str], plugins: Sequence[Path]) -> None:
    """The worker's life: answer until the parent closes the pipe or dies."""
    for end in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C and Slurm reach all processes; they are the parent's to handle
        signal.signal(end, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Waiting OpenMP threads spin briefly, then sleep.  Long spinning made a cell ten times slower on a machine that
    # others use too; not spinning at all made it twice as slow on an idle one (toy_vit, 2 threads).
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    worker = Worker(results, numerics, argv, plugins)
    try:
        while True:
            request = connection.recv()
            connection.send(answer(worker, request, connection))
    except (EOFError, BrokenPipeError):
        return


def _end_with_parent() -> None:
    """A worker whose parent was killed must not go on: the cell is another's now, and so may be the GPU."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def answer(worker: Worker, request: ResolveRequest | PlannedRun, connection: Connection) -> tuple[str, Any]:
    """What the parent is told, as the top of this file lists it; progress goes over the connection meanwhile."""
    if isinstance(request, ResolveRequest):
        return _described(worker, request, connection)
    return _done(worker, request, connection)


def _described(worker: Worker, request: ResolveRequest, connection: Connection) -> tuple[str, Any]:
    from ..engine.backbone import BackboneError

    try:
        return "described", worker.describe(request, lambda *progress: connection.send(("progress", progress)))
    except (BackboneError, ValueError) as error:
        return "refused", str(error)
    except Exception as error:  # a plug-in's mistake shows here first
        return "refused", f"{type(error).__name__}: {error}"


def _done(worker: Worker, cell: PlannedRun, connection: Connection) -> tuple[str, Any]:
    from ..storage.json_io import CorruptRecord, StoreError
    from ..storage.store import Store

    try:
        return "finished", worker.run(cell, connection)
    except BrokenPipeError:
        raise
    except Exception as error:  # one cell fails, the sweep goes on; the traceback is stored
        if isinstance(error, StoreError) and not isinstance(error, CorruptRecord):
            return "unwritable", str(error)
        reason = f"{type(error).__name__}: {error}"
        try:
            Store(worker.results).put_failure(cell.spec, reason, traceback.format_exc())
        except StoreError as unwritable:
            return "unwritable", f"{cell} failed ({reason}), and that cannot be recorded: {unwritable}"
        return "failed", reason
