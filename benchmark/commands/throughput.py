"""Throughput of a method on a device: images per second, FLOPs per image, and the device's peak FLOP/s.

The training loop itself is measured, on random images.  The time of an epoch is the time between two progress reports,
so start-up and compilation are not included.
"""

import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ...datasets.cache import CachedTask, Preprocessing
from ...datasets.task import SPLITS, SplitName, Task
from ...methods import Method
from ...methods.base import check_backbone
from ..engine.backbone import Backbone
from ..engine.evaluate import predict
from ..engine.injection import inject, wants_examples
from ..engine.live_model import LiveModel
from ..engine.timing import now, peak_memory, reset_peak_memory
from ..engine.trainer import Trained, train
from ..execution.method_info import trainable_params
from ..plan import BackboneInfo, MethodInfo, SweepConfig, make_plan
from ..spec import MethodRef, Recipe, RunSpec

EPOCHS = 4
"""Epochs per measurement; the first is discarded, the median of the others is used (ours)."""
IMAGES = {"cuda": 4096, "mps": 1024, "cpu": 80}
"""Images per epoch, so that an epoch takes a second or more (ours)."""
MATRIX = {"cuda": 8192, "mps": 4096, "cpu": 2048}
"""Side of the square matrices whose product measures peak FLOP/s; large enough to reach it (ours)."""
PATIENCE = 5.0
"""Seconds after which no further product is measured, as on a CPU that emulates bf16 (ours)."""


@dataclass(frozen=True)
class Speed:
    """Throughput of one method on one device."""

    method: str
    engine: str
    batch: int
    train_images_per_second: float
    evaluation_images_per_second: float
    gflop: float
    """GFLOP per training image: forward, and the part of backward that the method needs."""
    share_of_limit: float
    """FLOP/s of training divided by peak FLOP/s, in [0, 1]."""
    compile_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class TrainingSpeed:
    """Measurements of the training loop, and the trained model."""

    images_per_second: float
    peak_bytes: int
    trained: Trained


def check_methods(methods: Iterable[Method], backbone: Backbone) -> None:
    """Raise `ValueError` if a method does not fit the backbone, before the first is measured."""
    for method in methods:
        check_backbone(method, backbone.vit)
        trainable_params(method, backbone)


def measure(
    method: Method, backbone: Backbone, recipe: Recipe, data: CachedTask, live: LiveModel, flops: float, limit: float
) -> Speed:
    """Measure the throughput of one method.

    flops: FLOPs per training image.  limit: peak FLOP/s of the device.
    """
    training = measure_training(method, backbone, recipe, data, live)
    rate = training.images_per_second
    return Speed(
        method.spec(),
        live.numerics.engine,
        recipe.batch_size,
        rate,
        _evaluation_rate(training.trained, data, live),
        flops / 1e9,
        rate * flops / limit,
        training.trained.compile_seconds,
        peak_memory(live.device),
    )


def measure_training(
    method: Method, backbone: Backbone, recipe: Recipe, data: CachedTask, live: LiveModel
) -> TrainingSpeed:
    """Train for `EPOCHS` epochs on random images; the time of an epoch is the median of all but the first."""
    spec = spec_of(method, backbone, data, replace(recipe, epochs=EPOCHS, probe_epochs=EPOCHS, warmup_epochs=0))
    reset_peak_memory(live.device)
    ticks = Ticks()
    trained = train(spec, method, backbone, data, live, ticks)
    return TrainingSpeed(trained.images_seen / EPOCHS / ticks.seconds_per_epoch(), peak_memory(live.device), trained)


class Ticks:
    """Progress callback that records when each epoch ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, phase: str, *_: object) -> None:
        if phase == "train":
            self.times.append(time.perf_counter())

    def seconds_per_epoch(self) -> float:
        """Return the median over all epochs except the first."""
        return statistics.median(np.diff(self.times).tolist())


def _evaluation_rate(trained: Trained, data: CachedTask, live: LiveModel) -> float:
    images = data.images("test")
    predict(live, trained.head, images)
    started = now(live.device)
    predict(live, trained.head, images)
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
    """Yield a task of random images [n, 3, size, size], stored in a temporary folder."""
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
    """Return the spec of a test run with seed 0."""
    info = BackboneInfo(backbone.ref, None, backbone.mean, backbone.std, backbone.image_size, (), 1.0, "")
    name = method.spec().partition("(")[0]
    ref = MethodRef(name=name, args=method.hashed_args(), version=method.version, plugin=None, spec=method.spec())
    described = MethodInfo(ref, method.title, method.lr, method.frozen_features, 0)
    (run,) = make_plan(info, [described], [data], SweepConfig(recipe, [0]))
    return run.spec


def step_flops(method: Method, backbone: Backbone, recipe: Recipe, batch: int) -> int:
    """Return the FLOPs of a training step with `batch` images; those of the head alone if its features are cached.

    The whole last block is counted, as is usual, although the engine computes only its class token.  Head and loss are
    left out.  Work that does not depend on the batch, such as making a weight, is counted once: the FLOPs are a linear
    function of the number of images, known from 2 and 4 images.
    """
    if method.frozen_features and recipe.augmentation == "none":
        return 2 * 2 * backbone.vit.num_features * NOISE.classes * batch  # no gradient for the features
    images = torch.randn(4, 3, backbone.image_size, backbone.image_size)
    examples = (images[:2], torch.tensor([0, 1])) if wants_examples(method) else None
    vit = inject(backbone.vit, method, recipe, 0, examples).vit.train()
    two, four = (counted_flops(vit, torch.cat([images[:n]] * method.copies)) for n in (2, 4))
    return two + (four - two) * (batch - 2) // 2


def counted_flops(vit: nn.Module, images: Tensor) -> int:
    """Return the FLOPs of a forward and, if a parameter is trainable, a backward pass.

    torch's counter knows matrix products, convolutions and attention; element-wise operations, norms, softmax and
    Fourier transforms count as nothing.  It does not know the fused attention of CPUs, so attention is computed as
    two matrix products here.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if (features := vit(images)).requires_grad:
            features.sum().backward()
    return counter.get_total_flops()


def matrix_flops(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of the fastest of ten large matrix products, or fewer if one takes long."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = MATRIX[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(10):
        started = now(device)
        torch.matmul(a, b)
        seconds.append(now(device) - started)
        if sum(seconds) > PATIENCE:
            break
    return 2 * side**3 / min(seconds)
