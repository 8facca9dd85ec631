"""The worker process.  torch is imported here and never in the parent.

A worker answers the requests of messages.py on a pipe, one at a time, and keeps its backbone from run to run.
It stores results itself, so that none is lost when the parent dies.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, NoReturn

from ..engine.epoch import EpochFacts
from ..escaping import escaped_output
from ..plan import BackboneInfo, PlannedRun
from .messages import (
    ConfigurationRefused,
    ProgressUpdate,
    Resolved,
    ResolveReply,
    ResolveRequest,
    ResultsUnwritable,
    RunFailed,
    RunFinished,
    RunReply,
    WorkerConfig,
)
from .method_info import all_methods, identity, method_info, method_ref, variants_of
from .process import MARK, kill_family
from .run_log import RunLog
from .screen import keep_working_without_screen

if TYPE_CHECKING:
    from torch import Tensor

    from ..engine.backbone import Backbone
    from ..engine.evaluate import ProgressFn
    from ..engine.trainer import Trained

FP32 = "--set precision=fp32 makes a leaderboard of its own"
"""Advice to the user where bf16 is slow."""
SPEED_BATCH = {"cuda": 64, "mps": 64, "cpu": 8}
"""Images in the forward pass timed for estimates (ours: about a second for ViT-B on two cores; fewer images on a GPU
would time kernel launches)."""


class Worker:
    """Answers requests; keeps the last backbone between them."""

    def __init__(self, config: WorkerConfig) -> None:
        import torch

        from ..engine.device import choose_device
        from ..engine.live_model import LiveModel

        torch.set_num_threads(config.numerics.threads)
        self.config = config
        self.device = choose_device(config.device, config.number)
        self.live = LiveModel(self.device, config.numerics)
        self._loaded: tuple[tuple[str, str | None, int | None], Backbone] | None = None

    def backbone(
        self, name: str, weights: str | None, image_size: int | None, on_progress: "ProgressFn" = lambda *_: None
    ) -> "Backbone":
        from ..engine.backbone import load

        wanted = (name, weights, image_size)
        if self._loaded is None or self._loaded[0] != wanted:
            self._loaded = (wanted, load(*wanted, on_progress))
        return self._loaded[1]

    def resolve(self, request: ResolveRequest, on_progress: "ProgressFn" = lambda *_: None) -> Resolved:
        """Load the backbone, parse the methods and check that they fit.

        Args:
            on_progress: called before and after a download.

        Raises:
            BackboneError, ValueError: with a message for the user.
        """
        from ...methods import parse
        from ...methods.base import check_backbone
        from ..engine.device import precision_notes, use_device
        from ..engine.timing import device_name

        use_device(self.device)
        plugged = self.load_plugins()
        named = [spec for spec in request.methods if spec != "all"] + (plugged if request.all_plugged else [])
        asked = [parse(spec) for spec in named]  # refuse a wrong name before weights are looked for
        backbone = self.backbone(request.backbone, request.weights, request.image_size, on_progress)
        fitting, notes = all_methods(backbone) if "all" in request.methods else ([], [])
        methods = list({method.spec(): method for method in (*fitting, *asked)}.values())
        for method in methods:
            check_backbone(method, backbone.vit)
        info = BackboneInfo(
            ref=backbone.ref,
            weights=request.weights,
            mean=backbone.mean,
            std=backbone.std,
            image_size=backbone.image_size,
            notes=(*backbone.notes, *notes, *precision_notes(self.device, request.precision, FP32)),
            seconds_per_image=self._seconds_per_image(backbone, request.precision),
            device=device_name(self.device),
            on_gpu=self.device.type == "cuda",
            plugged=backbone.plugin is not None,
        )
        infos = []
        for method in methods:
            variants = variants_of(method, request.grid) if request.variants else []
            infos.append(
                replace(method_info(method, backbone), variants=tuple(method_info(v, backbone) for v in variants))
            )
        return Resolved(info, infos)

    def load_plugins(self) -> list[str]:
        """Load the plug-in files and return the names of the methods they register."""
        from ...methods.plugin import load_plugin

        return [name for path in self.config.plugins for name in load_plugin(path)]

    def run(self, run: PlannedRun, on_progress: "ProgressFn") -> RunFinished | ResultsUnwritable:
        """Train, evaluate and store a run; errors of a method are raised."""
        import torch

        from ...methods import parse
        from ...methods.plugin import loaded_plugins
        from ..checkpoints.adapter_checkpoint import pack
        from ..engine.device import use_device, workers_sharing
        from ..engine.evaluate import compact
        from ..engine.timing import provenance
        from ..engine.trainer import train_and_evaluate
        from ..storage.json_io import StoreError
        from ..storage.store import Store

        use_device(self.device)
        self.load_plugins()  # a worker that replaces a lost one has resolved nothing
        spec, store = run.spec, Store(self.config.results)
        backbone = self.backbone(spec.backbone.name, run.weights, spec.recipe.image_size, on_progress)
        if backbone.ref != spec.backbone:
            raise RuntimeError(f"the weights of {spec.backbone.name} changed since the plan was made")
        method = parse(spec.method.spec)
        if identity(method_ref(method)) != identity(spec.method):
            raise RuntimeError(f"{spec.method.spec} or its plug-in file changed since the plan was made")
        try:
            earlier, _ = store.latest(spec)  # the scheduler has quarantined damaged records
            repetition = store.next_repetition(spec)  # fixed now, whatever others store meanwhile
        except StoreError as error:
            return ResultsUnwritable(str(error))
        adapters: list[bytes] = []
        logits: list[Tensor] = []

        def pack_adapter(trained: "Trained") -> None:
            adapters.append(pack(spec, trained, run.data.task.class_names))

        with RunLog(self.config.log, store.root, run) as log:

            def report(phase: str, done: int, total: int, epoch: EpochFacts | None = None) -> None:
                if epoch is not None:
                    log.write(done, epoch)
                on_progress(phase, done, total, epoch)

            result, predictions = train_and_evaluate(
                spec,
                method,
                backbone,
                run.data,
                self.live,
                report,
                evaluate_each_epoch=run.oracle or (bool(self.config.log) and spec.split == "val"),
                on_trained=pack_adapter if run.keep_adapter else None,
                on_logits=(lambda batch: logits.append(compact(batch))) if run.keep_logits else None,
            )
        if not run.oracle:  # evaluated for the log only
            result = replace(result, oracle_accuracy=None, oracle_epoch=None)
        origin = provenance(self.device, self.config.argv, self.live.numerics)
        facts = {"group": run.data.task.group, "classes": run.data.classes, "title": run.method.title, **run.facts}
        if run.data.warnings:
            facts["data_warnings"] = list(run.data.warnings)
        if spec.split == "test":
            facts["test_images"] = len(predictions)
        plugins: list[dict[str, Any]] = [
            {**own, "backbone": True} if own["sha256"] == backbone.plugin else {**own} for own in loaded_plugins()
        ]
        record = {
            "result": result.to_json(),
            "facts": facts,
            "provenance": {
                **origin,
                "concurrent_runs": workers_sharing(self.config.device, self.config.number, self.config.concurrent_runs),
                **({"weights": list(backbone.notes)} if backbone.notes else {}),
                **({"plugins": plugins} if plugins else {}),
            },
        }
        labels = run.data.labels(spec.split)
        correct = predictions == labels
        try:
            kept = {"logits": torch.cat(logits).cpu().numpy(), "labels": labels} if logits else {}
            adapter = adapters[0] if adapters else None
            path = store.save(spec, record, predictions, correct, adapter, repetition, **kept)
            stored = store.load(path)
        except StoreError as error:
            return ResultsUnwritable(str(error))
        agrees = None if earlier is None else earlier.predictions_sha256 == stored.predictions_sha256
        seconds = result.train_seconds + result.eval_seconds
        return RunFinished(path, result.accuracy, seconds, result.images_per_second, agrees, self.live.oom_summary)

    def _seconds_per_image(self, backbone: "Backbone", precision: str) -> float:
        """Time one forward pass of the frozen backbone, after one to warm up."""
        import copy

        import torch

        from ..engine.fast_path import make_fast
        from ..engine.timing import now

        vit = copy.deepcopy(backbone.vit).to(self.device).eval()
        make_fast(vit, precision, self.device.type)
        batch = SPEED_BATCH[self.device.type]
        images = torch.zeros(batch, 3, backbone.image_size, backbone.image_size, device=self.device)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            vit(images)
            started = now(self.device)
            vit(images)
        return (now(self.device) - started) / batch


def serve(connection: Connection, config: WorkerConfig) -> None:
    """Run the worker process: answer requests until the parent closes the pipe or dies."""
    os.setsid()  # the processes that a method starts are in this session and end with it
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a job; only the parent handles them
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    # Waiting OpenMP threads spin briefly, then sleep.  Long spinning made a run ten times slower on a machine that
    # others use too; not spinning at all made it twice as slow on an idle one (toy_vit, 2 threads).
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    process = os.getpid()

    def send(message: ProgressUpdate | ResolveReply | RunReply) -> None:
        if os.getpid() != process:  # a child that a method forked, and that returned from the method
            os._exit(1)
        try:
            data = ForkingPickler.dumps(message)
        except Exception as error:  # a value of a plug-in; pickling raises many types
            reason = f"a value of the plug-in cannot be sent to the parent: {type(error).__name__}: {error}"
            refused = isinstance(message, Resolved | ConfigurationRefused)
            data = ForkingPickler.dumps(ConfigurationRefused(reason) if refused else RunFailed(reason, "PicklingError"))
        try:
            connection.send_bytes(data)
        except OSError:  # the parent is gone
            _exit_with_children()

    with keep_working_without_screen(), escaped_output():
        worker = Worker(config)
        with suppress(EOFError, OSError):
            while True:
                request = connection.recv()
                send(reply_to(request, worker, lambda *update: send(ProgressUpdate(*update))))


def _exit_with_parent() -> None:
    """Exit when the parent is killed: another command may own the run and the GPU by now."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        _exit_with_children()


def _exit_with_children() -> NoReturn:
    kill_family(os.getpid(), os.environ.get(MARK, ""))
    os._exit(1)


def reply_to(
    request: ResolveRequest | PlannedRun, worker: Worker, on_progress: "ProgressFn"
) -> ResolveReply | RunReply:
    """Answer a request; exceptions become messages, also those that normally end a process."""
    from ..engine.backbone import BackboneError
    from ..engine.errors import message_of, valid_text

    try:
        if isinstance(request, ResolveRequest):
            return worker.resolve(request, on_progress)
        return worker.run(request, on_progress)
    except BaseException as error:  # a method may raise anything
        error_type, message = type(error).__name__, message_of(error)
        if isinstance(request, ResolveRequest):  # errors of other types come from plug-in files
            expected = isinstance(error, BackboneError | ValueError)
            return ConfigurationRefused(message if expected else f"{error_type}: {message}")
        return RunFailed(f"{error_type}: {message}", error_type, valid_text(traceback.format_exc()))
