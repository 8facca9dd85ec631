"""The command `cost`: measure what methods cost in training and inference, and store it beside the results.

The training step is the engine's own, measured as `speed` does.  Inference is timm's model with the method in it, and
once more in the form with the least work: merged into the backbone, or with tokens skipped.
"""

import argparse
import copy
import ctypes
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ...datasets.cache import CachedTask
from ...datasets.reading import InvalidFile
from ...methods import Method, parse
from ...methods.anatomy import VisionModel
from ...methods.plugin import described, load_plugin, plugin_sha256
from ..engine.backbone import Backbone, BackboneError, load
from ..engine.device import choose_device, precision_notes, use_device, use_threads
from ..engine.errors import free_memory, is_oom, one_line_message
from ..engine.fast_path import prepare_for_bf16
from ..engine.injection import inject, wants_examples
from ..engine.live_model import LiveModel
from ..engine.numerics import Numerics
from ..engine.timing import device_name, now, provenance
from ..execution.method_info import all_methods, method_ref
from ..recipes import UNIFORM
from ..reporting.tables import count
from ..reporting.text_table import text_table
from ..storage.costs import SCHEMA, Cost, Form, Inference, Latency, Setup, Training, load_cost, path_of, save_cost
from ..storage.json_io import require_writable
from ..storage.layout import Provenance
from .messages import say, say_all
from .throughput import IMAGES, NOISE, check_methods, counted_flops, measure_training, noise, step_flops

PASSES, SECONDS, MOST = 3, 2.0, 200
"""A latency is the median of at least 3 passes, of as many as fit into 2 seconds, of at most 200 (ours)."""


def cost(options: argparse.Namespace) -> int:
    """Run `vtab-peft cost`: measure what is not stored, store it, and print a table."""
    use_device(device := choose_device(options.device))
    use_threads(options.threads)
    for plugin in options.plugin:
        load_plugin(plugin)
    try:
        backbone = load(options.backbone, options.weights, options.image_size)
    except BackboneError as error:
        raise ValueError(str(error)) from None
    say_all(precision_notes(device, options.precision, "use --precision fp32"))
    setup = Setup(
        device=device_name(device),
        precision=options.precision,
        threads=options.threads,
        image_size=backbone.image_size,
        train_batch=options.train_batch,
        batches=tuple(sorted(set(options.batch))),
    )
    methods = _methods(options.methods, backbone)
    images = max((options.images or IMAGES[device.type]) // setup.train_batch, 2) * setup.train_batch
    paths = [path_of(options.results, backbone.ref.name, method_ref(method), setup) for method in methods]
    known = [None if options.again else _stored(path, images if options.images else 0) for path in paths]
    if None in known:
        require_writable(options.results / "costs")
    found: list[Cost] = []
    with noise({"train": images, "val": 1, "test": 1}, backbone.image_size) as data:
        for method, stored in zip(methods, known, strict=True):
            if stored is None:
                stored = measure_cost(method, backbone, setup, data, device)
                save_cost(options.results, stored)
            found.append(stored)
            say(f"{method.spec()}: {stored.training.step_milliseconds:,.0f} ms per training step")
    print(f"{backbone.ref.name} on {setup}\n\n{table(found)}\n")
    say(f"{len(found)} cost records are in {options.results / 'costs'}; `vtab-peft report` adds them to its tables")
    return 0


def _stored(path: Path, images: int) -> Cost | None:
    """Return a stored record, or None if there is none of so many images.

    Raises:
        ValueError: the record is damaged; the message has advice.
    """
    try:
        cost = load_cost(path) if path.exists() else None
    except InvalidFile as error:
        raise ValueError(f"{error}; delete it, or measure again with --repeat") from None
    return cost if cost and (cost.training.images or 0) >= images else None


def _methods(names: Sequence[str], backbone: Backbone) -> list[Method]:
    """Return the methods that the names mean, each once; raise `ValueError` if one does not fit the backbone."""
    asked = [parse(name) for name in names if name != "all"]
    found, notes = all_methods(backbone) if "all" in names else ([], [])
    for note in notes:
        say(note)
    methods = list({method.spec(): method for method in (*found, *asked)}.values())
    check_methods(methods, backbone)
    return methods


def measure_cost(method: Method, backbone: Backbone, setup: Setup, data: CachedTask, device: torch.device) -> Cost:
    """Measure one method.

    data: a task of random images.

    Raises:
        ValueError: The method does not fit the backbone, or a batch does not fit into memory.
    """
    numerics = Numerics(setup.threads)
    recipe = replace(UNIFORM, batch_size=setup.train_batch, precision=setup.precision)
    images = torch.randn(2, 3, setup.image_size, setup.image_size, generator=torch.Generator().manual_seed(0))
    examples = (images, torch.tensor([0, 1])) if wants_examples(method) else None
    injected = inject(backbone.vit, method, recipe, 0, examples)
    _release_memory(device)
    try:
        training = measure_training(method, backbone, recipe, data, LiveModel(device, numerics))
        as_trained = _inference(injected.vit, setup, device)
        form, vit = deployed_form(method, injected.vit)
        deployed = as_trained if form == "trained" else _inference(vit, setup, device)
    except Exception as error:
        if is_oom(error):
            raise ValueError(f"{method.spec()}: a batch does not fit into memory: {one_line_message(error)}") from None
        if plugin_sha256(method) is None:
            raise
        raise ValueError(f"{method.spec()} cannot be measured: {described(error)}") from None
    return Cost(
        schema=SCHEMA,
        backbone=backbone.ref.name,
        method=method_ref(method),
        title=method.title or method.spec(),
        setup=setup,
        trainable_params=injected.trainable_params(),
        adapter_bytes=injected.adapter_bytes(),
        training=Training(
            flops=step_flops(method, backbone, recipe, setup.train_batch),
            step_milliseconds=1000 * setup.train_batch / training.images_per_second,
            images_per_second=training.images_per_second,
            peak_bytes=training.peak_bytes,
            images=data.counts["train"],
        ),
        trained=as_trained,
        deployed_as=form,
        deployed=deployed,
        provenance=cast(Provenance, provenance(device, sys.argv, numerics)),
    )


def _release_memory(device: torch.device) -> None:
    """Return freed memory to the system, so that the peak on a CPU is not that of an earlier method."""
    free_memory(device)
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def deployed_form(method: Method, vit: VisionModel) -> tuple[Form, VisionModel]:
    """Return the form of an injected model with the least work, and its model; `vit` itself if there is no other."""
    other = copy.deepcopy(vit)
    if method.skips_tokens():
        method.skip_tokens(other)
        return "with skipped tokens", other
    try:
        method.merge(other)
    except TypeError:
        return "trained", vit
    is_plain = [*map(type, other.modules())] == [*map(type, vit.modules())]  # the method trains weights of the backbone
    return ("trained", vit) if is_plain else ("merged", other)


def _inference(vit: VisionModel, setup: Setup, device: torch.device) -> Inference:
    """Measure a frozen copy of a model on the device, with a head."""
    images = torch.randn(max(setup.batches), 3, setup.image_size, setup.image_size)
    vit = copy.deepcopy(vit).eval().requires_grad_(False)
    flops = counted_flops(vit, images[:1])
    if setup.precision == "bf16":
        prepare_for_bf16(vit, device.type)
    model = nn.Sequential(vit, nn.Linear(vit.num_features, NOISE.classes)).eval().to(device)
    images = images.to(device)
    return Inference(flops, [Latency(n, _milliseconds(model, images[:n], setup.precision)) for n in setup.batches])


@torch.no_grad()
def _milliseconds(model: nn.Module, images: Tensor, precision: str) -> float:
    """Return the median time of a forward pass, after one that is not counted."""
    device = images.device
    seconds: list[float] = []
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        model(images)
        while len(seconds) < PASSES or (sum(seconds) < SECONDS and len(seconds) < MOST):
            started = now(device)
            model(images)
            seconds.append(now(device) - started)
    return 1000 * statistics.median(seconds)


def table(costs: Sequence[Cost]) -> str:
    """Return the printed table."""
    batches = costs[0].setup.batches
    lines = [
        (
            cost.method.spec,
            count(cost.trainable_params),
            f"{cost.adapter_bytes / 1e3:,.0f}",
            f"{cost.training.step_milliseconds:,.0f}",
            f"{cost.training.peak_bytes / 1e6:,.0f}",
            f"{cost.training.flops / 1e9:,.1f}",
            cost.deployed_as,
            _change(cost, lambda form: form.flops / 1e9, 3),
            *(_change(cost, lambda form, i=i: form.latency[i].milliseconds, 1) for i in range(len(batches))),
        )
        for cost in costs
    ]
    times = [f"ms, batch {batch}" for batch in batches]
    header = ("method", "params", "adapter kB", "step ms", "peak MB", "step GFLOP", "deployed", "GFLOP", *times)
    return text_table(header, lines, "lrrrrrlr" + "r" * len(times))


def _change(cost: Cost, value: Callable[[Inference], float], decimals: int) -> str:
    """Return a cost of inference, and behind an arrow that of the deployed form if it is another."""
    before = f"{value(cost.trained):,.{decimals}f}"
    return before if cost.deployed_as == "trained" else f"{before} → {value(cost.deployed):,.{decimals}f}"
