"""One cell from spec to result: inject, train, evaluate once.  Read it top to bottom.

The training images stay on the device as uint8; normalisation, crops and flips happen there.  Every random stream
(initial values, head, permutations, crops, flips, drop-path) has a seed of its own, so that a cell depends on its spec
alone, not on what ran before it in the process.
"""

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...datasets.cache import CachedTask
from ...methods import Method
from ..spec import Recipe, RunSpec, canonical_json
from .backbone import Backbone
from .errors import is_oom, one_line_message
from .evaluate import Classifier, Oracle, ProgressFn, in_parts, predict, warm_up
from .fast_path import make_fast
from .fitting import fit
from .injection import inject, wants_examples
from .live_model import LiveModel
from .optim import batches
from .timing import now, peak_memory, reset_peak_memory
from .transforms import Normalised, framed, prepared, random_crop, random_flip


@dataclass(frozen=True)
class RunResult:
    accuracy: float
    """Of the trained, unmerged model after the last epoch, on the evaluation split, in [0, 1]."""
    per_class_accuracy: list[float | None]
    """None for a class without an example in the split."""
    loss_curve: list[float]
    """Mean training loss of each epoch."""
    trainable_params: int
    """Without the head."""
    head_params: int
    total_params: int
    """Backbone, method and head."""
    adapter_bytes: int
    """Of what the method added or changed, as a safetensors file."""
    train_seconds: float
    eval_seconds: float
    compile_seconds: float
    """Before training; zero where what an earlier cell compiled serves this one too."""
    images_per_second: float
    """Training images over `train_seconds`."""
    peak_bytes: int
    """GPU memory allocated, or on a CPU the resident set of the process, at its highest during this cell.  What CUDA
    graphs work in counts for the cell that captured them, not for those that replay them."""
    oracle_accuracy: float | None
    """Of the best epoch on the evaluation split, chosen by looking at it; None unless asked for, and never ranked."""
    oracle_epoch: int | None
    """Which epoch that was, from 1."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Trained(Classifier):
    """A cell after its last epoch."""

    loss_curve: list[float]
    images_seen: int
    train_seconds: float
    compile_seconds: float


def run(
    spec: RunSpec,
    method: Method,
    backbone: Backbone,
    data: CachedTask,
    live: LiveModel,
    tell: ProgressFn,
    with_oracle: bool = False,
    keep: Callable[[Trained], None] = lambda _: None,
) -> tuple[RunResult, np.ndarray]:
    """Train a cell, evaluate it once, show it to `keep`; returns its result and predictions [n], in the split's order.

    with_oracle: also look after every epoch, and say what the best one would have given.

    Raises:
        Diverged: the loss, or what the trained model computes, is not finite.
        OutOfMemory: not even one image at a time fits.
    """
    device = live.device
    trained, oracle = _train_in_memory(spec, method, backbone, data, live, tell, with_oracle)

    started = now(device)
    truth = data.labels(spec.split)  # without an oracle the evaluation split is opened here, after the last epoch
    predictions = predict(trained, data.images(spec.split), live, tell)
    correct = predictions == truth
    modules = (trained.injected.vit, trained.head)
    best = oracle.best() if oracle else (None, None)
    result = RunResult(
        accuracy=float(correct.mean()),
        per_class_accuracy=[
            float(correct[truth == c].mean()) if (truth == c).any() else None for c in range(data.classes)
        ],
        loss_curve=trained.loss_curve,
        trainable_params=trained.injected.trainable_params(),
        head_params=sum(p.numel() for p in trained.head.parameters()),
        total_params=sum(p.numel() for module in modules for p in module.parameters()),
        adapter_bytes=trained.injected.adapter_bytes(),
        train_seconds=trained.train_seconds,
        eval_seconds=now(device) - started,
        compile_seconds=trained.compile_seconds,
        images_per_second=trained.images_seen / trained.train_seconds,
        peak_bytes=peak_memory(device),
        oracle_accuracy=best[0],
        oracle_epoch=best[1],
    )
    keep(trained)
    return result, predictions


def _train_in_memory(
    spec: RunSpec,
    method: Method,
    backbone: Backbone,
    data: CachedTask,
    live: LiveModel,
    tell: ProgressFn,
    with_oracle: bool,
) -> tuple[Trained, Oracle | None]:
    """`train`, anew with half as many images at a time as often as memory is short, which its first step shows.

    Anew, and not from the step that failed: so the cell is the one that `--micro-batch` gives, whenever it failed.
    """
    while True:
        reset_peak_memory(live.device)
        oracle = Oracle(data, spec.split, live) if with_oracle else None
        try:
            return train(spec, method, backbone, data, live, tell, oracle), oracle
        except Exception as error:
            if not is_oom(error):
                raise
            reason = one_line_message(error)
        batch = spec.recipe.batch_size
        live.halve("micro_batch", min(live.numerics.micro_batch or batch, batch), reason)


def train(
    spec: RunSpec,
    method: Method,
    backbone: Backbone,
    data: CachedTask,
    live: LiveModel,
    tell: ProgressFn,
    oracle: Oracle | None = None,
) -> Trained:
    """Train one cell on train800 + val200, or on train800 alone when the spec is evaluated on val."""
    recipe, device = spec.recipe, live.device
    splits = ("train", "val") if spec.split == "test" else ("train",)
    images = torch.from_numpy(np.concatenate([data.images(s) for s in splits])).to(device)  # [n, 3, h, w] uint8
    labels = torch.from_numpy(np.concatenate([data.labels(s) for s in splits])).to(device)
    size = backbone.image_size

    examples = (prepared(images, size, spec), labels) if wants_examples(method) else None
    fresh = inject(backbone.vit, method, recipe, derive_seed(spec.seed, "initial values"), examples)
    make_fast(fresh.vit, recipe.precision, device.type)
    injected, anew = live.take(fresh, _kind(spec), Normalised(spec.mean, spec.std))
    vit = injected.vit
    head = _head(backbone.vit.num_features, data.classes, recipe, derive_seed(spec.seed, "head")).to(device)

    def features(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16) if recipe.precision == "bf16" else nullcontext():
            return live.features(framed(batch, size, spec)).float()

    crops = torch.Generator().manual_seed(derive_seed(spec.seed, "crops"))
    flips = torch.Generator().manual_seed(derive_seed(spec.seed, "flips"))

    def augmented(index: Tensor) -> Tensor:
        batch = images[index]
        if recipe.augmentation == "crop_flip":
            batch = random_crop(batch, size, crops)
        if recipe.augmentation in ("flip", "crop_flip"):
            batch = random_flip(batch, flips)
        return batch

    def logits(batch: Tensor) -> Tensor:
        return head(features(batch))

    def after_epoch() -> None:
        if oracle:
            oracle.look(Classifier(injected, head, features))

    from_cache = method.frozen_features and recipe.augmentation == "none"
    batch, compile_seconds = len(batches(labels, recipe)[0]), 0.0
    part = batch if from_cache else min(live.numerics.micro_batch or batch, batch)
    if anew and live.compiles:
        vit.eval()
        compile_seconds = warm_up(features, images.shape[1:], live)  # first: where it is too large it ends all graphs
        compile_seconds += 0.0 if from_cache else live.warm_up(features, (part, *images.shape[1:]))
    started = now(device)
    seeds = derive_seed(spec.seed, "dropout"), derive_seed(spec.seed, "permutations")
    if from_cache:
        vit.eval()
        with torch.no_grad():
            parts = in_parts(lambda some: live.filled(features, images[some]), len(images), live)
            cached = torch.cat(list(parts))
        losses = fit(head, cached.__getitem__, head, labels, method, injected, recipe, part, seeds, tell, after_epoch)
    else:
        model = nn.ModuleList([vit, head])
        losses = fit(model, augmented, logits, labels, method, injected, recipe, part, seeds, tell, after_epoch)
    seen = len(losses) * sum(len(batch) for batch in batches(labels, recipe))
    seconds = now(device) - started - (oracle.seconds if oracle else 0.0)
    return Trained(injected, head, features, losses, seen, seconds, compile_seconds)


def _head(features: int, classes: int, recipe: Recipe, seed: int) -> nn.Linear:
    """The classifier; always the engine's, never the method's."""
    head = nn.Linear(features, classes)
    nn.init.zeros_(head.bias)
    generator = torch.Generator().manual_seed(seed)
    match recipe.head_init:
        case "zeros":
            nn.init.zeros_(head.weight)
        case "trunc_normal":
            nn.init.trunc_normal_(head.weight, std=0.02, a=-0.04, b=0.04, generator=generator)
        case "uniform":
            nn.init.uniform_(head.weight, -(features**-0.5), features**-0.5, generator=generator)
        case "kaiming":
            nn.init.normal_(head.weight, std=(2 / classes) ** 0.5, generator=generator)
    return head


def _kind(spec: RunSpec) -> str:
    """Names all that a cell's model is made of, but for values: cells of one kind share compiled code."""
    recipe = spec.recipe
    return canonical_json(
        {
            "backbone": [spec.backbone.name, spec.backbone.sha256, recipe.image_size],
            "method": spec.method.hashed(),
            "normalisation": [spec.mean, spec.std],
            "recipe": [recipe.drop_path, recipe.branch_dropout, recipe.mlp_dropout, recipe.precision],
        }
    )


def derive_seed(seed: int, use: str) -> int:
    """A generator seed of its own for each use of randomness."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{use}".encode()).digest()[:6], "big")
