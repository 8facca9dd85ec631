"""The steady state of a method on a device, and what it is held against: operations counted, and a limit measured.

Everything is measured through the one training loop, on images made of noise: an epoch's time is the time between two
reports of progress, so start-up and compilation stay out.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ...datasets.cache import CachedTask, Preprocessing
from ...datasets.task import SPLITS, SplitName, Task
from ...methods import Method
from ..engine.backbone import Backbone
from ..engine.injection import inject, wants_examples
from ..engine.timing import now, peak_memory, reset_peak_memory
from ..engine.trainer import LiveModel, Trained, predict, train
from ..plan import BackboneInfo, MethodInfo, SweepConfig, make_plan
from ..spec import MethodRef, Recipe, RunSpec

EPOCHS = 4
"""The first is left out; the median of the rest counts (ours)."""
MATRIX = {"cuda": 8192, "cpu": 2048}
"""Side of the square matrices whose product is the limit: large enough to be at it (ours)."""


@dataclass(frozen=True)
class Speed:
    """Of one method on one device."""

    method: str
    engine: str
    batch: int
    train_images_per_second: float
    evaluation_images_per_second: float
    gflop: float
    """Of one training image: forward, and backward as far as this method needs it."""
    share_of_limit: float
    """Of training, in [0, 1]."""
    compile_seconds: float
    peak_bytes: int


def measure(
    method: Method, backbone: Backbone, recipe: Recipe, data: CachedTask, live: LiveModel, flops: float, limit: float
) -> Speed:
    """The steady state of one method.

    flops: of one training image.  limit: floating-point operations a second that the device can do.
    """
    spec = spec_of(method, backbone, data, replace(recipe, epochs=EPOCHS, probe_epochs=EPOCHS, warmup_epochs=0))
    reset_peak_memory(live.device)
    ticks = Ticks()
    trained = train(spec, method, backbone, data, live, ticks)
    rate = trained.images_seen / EPOCHS / ticks.seconds_per_epoch()
    return Speed(
        method.spec(),
        live.numerics.engine,
        recipe.batch_size,
        rate,
        _evaluation_rate(trained, data, live),
        flops / 1e9,
        rate * flops / limit,
        trained.compile_seconds,
        peak_memory(live.device),
    )


class Ticks:
    """Receives progress and remembers when each epoch ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, phase: str, done: int, of: int) -> None:
        if phase == "train":
            self.times.append(time.perf_counter())

    def seconds_per_epoch(self) -> float:
        """Median over all epochs but the first."""
        return statistics.median(np.diff(self.times).tolist())


def _evaluation_rate(trained: Trained, data: CachedTask, live: LiveModel) -> float:
    images = data.images("test")
    predict(trained, images, live, lambda *_: None)
    started = now(live.device)
    predict(trained, images, live, lambda *_: None)
    return len(images) / (now(live.device) - started)


NOISE = Task(
    suite="own",
    name="noise",
    group="own",
    classes=10,
    sizes={},
    load=lambda _: {},
    source="random pixels",
    licence="none",
    citation="none",
)


@contextmanager
def noise(counts: dict[SplitName, int], size: int) -> Iterator[CachedTask]:
    """A task of random images [n, 3, size, size], on disk as long as the block lasts."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="vtab-peft-noise-") as name:
        files = {}
        for split in SPLITS:
            files[split] = (Path(name) / f"{split}.npy", Path(name) / f"{split}-labels.npy")
            np.save(files[split][0], rng.integers(0, 256, (counts[split], 3, size, size), np.uint8))
            np.save(files[split][1], rng.integers(0, NOISE.classes, counts[split]))
        yield CachedTask(
            task=NOISE,
            preprocessing=Preprocessing(size, "bicubic"),
            data="0" * 16,
            provenance="own",
            classes=NOISE.classes,
            counts=counts,
            native=False,
            files=files,
        )


def spec_of(method: Method, backbone: Backbone, data: CachedTask, recipe: Recipe) -> RunSpec:
    """The spec of a test cell with seed 0."""
    info = BackboneInfo(backbone.ref, None, backbone.mean, backbone.std, backbone.image_size, (), 1.0, "")
    name = method.spec().partition("(")[0]
    ref = MethodRef(name=name, args=method.args(), version=method.version, plugin=None, spec=method.spec())
    described = MethodInfo(ref, method.title, method.lr, method.frozen_features, 0)
    (cell,) = make_plan(info, [described], [data], SweepConfig(recipe, [0]))
    return cell.spec


def training_flops(method: Method, backbone: Backbone, recipe: Recipe) -> float:
    """Floating-point operations of one image in a training step; of the head alone where features are cached.

    Of the whole model, as others count it: what the engine need not compute of the last block is in it too.
    """
    if method.frozen_features:
        return 3 * 2 * backbone.vit.num_features * NOISE.classes
    images = torch.randn(2, 3, backbone.image_size, backbone.image_size)
    examples = (images, torch.tensor([0, 1])) if wants_examples(method) else None
    return counted_flops(inject(backbone.vit, method, recipe, 0, examples).vit.train(), images) / len(images)


def counted_flops(vit: nn.Module, images: Tensor) -> float:
    """Of all matrix products in the forward pass, and in the backward pass where something learns."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused kernels hide their products
        if (features := vit(images)).requires_grad:
            features.sum().backward()
    return counter.get_total_flops()


def matrix_flops(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of the fastest large matrix product seen in ten."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    side = MATRIX[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2 * side**3 / min(_seconds(lambda: a @ b, device) for _ in range(10))


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    started = now(device)
    work()
    return now(device) - started
