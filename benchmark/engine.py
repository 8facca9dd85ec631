"""One cell from spec to result: inject, train, evaluate once.  Read it top to bottom.

The training images stay on the device as uint8; normalisation and flips happen there; an epoch is one
permutation; there is no host synchronisation inside an epoch.  Every random stream (initial values, head,
permutations, flips, drop-path) has a seed of its own, so that a cell depends on its spec alone, not on what
ran before it in the process.
"""

import hashlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.cache import CachedTask
from ..methods import Method
from .adapter import Injected, inject, store_frozen_as, wants_examples
from .backbone import Backbone
from .images import random_flip, to_input
from .live import Live
from .measure import now, peak_memory, reset_peak_memory
from .optimization import batches, learning_rate, optimizer_for, total_epochs
from .spec import Recipe, RunSpec, canonical_json

EVAL_BATCH = 128
"""Images per forward pass in evaluation; fixed, so that the same cell sums in the same order everywhere."""

Tell = Callable[[str, int, int], None]
"""Receives (phase, done, of), phase being "train" in epochs or "test" in images."""


class Diverged(Exception):
    """The training loss is not finite."""


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
    """GPU memory allocated, or on a CPU the resident set of the process, at its highest during this cell."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """A cell after its last epoch: features [b, d] by `vit`, logits [b, k] by `head`."""

    injected: Injected
    head: nn.Linear
    features: Callable[[Tensor], Tensor]
    """uint8 [b, 3, h, w] -> fp32 [b, d]"""
    loss_curve: list[float]
    images_seen: int
    train_seconds: float
    compile_seconds: float


def run(
    spec: RunSpec,
    method: Method,
    backbone: Backbone,
    data: CachedTask,
    live: Live,
    tell: Tell,
    keep: Callable[[Trained], None] = lambda _: None,
) -> tuple[RunResult, np.ndarray]:
    """Train a cell, evaluate it once, show it to `keep`; returns its result and predictions [n], in the split's order.

    Raises:
        Diverged: the loss became infinite or not a number.
    """
    device = live.device
    reset_peak_memory(device)
    trained = train(spec, method, backbone, data, live, tell)

    started = now(device)
    truth = data.labels(spec.split)  # the evaluation split is opened here, after the last epoch
    predictions = predict(trained, data.images(spec.split), live, tell)
    correct = predictions == truth
    modules = (trained.injected.vit, trained.head)
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
    )
    keep(trained)
    return result, predictions


def train(spec: RunSpec, method: Method, backbone: Backbone, data: CachedTask, live: Live, tell: Tell) -> Trained:
    """Train one cell on train800 + val200, or on train800 alone when the spec is evaluated on val."""
    recipe, device = spec.recipe, live.device
    splits = ("train", "val") if spec.split == "test" else ("train",)
    images = torch.from_numpy(np.concatenate([data.images(s) for s in splits])).to(device)  # [n, 3, h, w] uint8
    labels = torch.from_numpy(np.concatenate([data.labels(s) for s in splits])).to(device)

    def normalise(batch: Tensor) -> Tensor:
        return to_input(batch, backbone.image_size, spec.interpolation, spec.mean, spec.std)

    examples = (normalise(images), labels) if wants_examples(method) else None
    fresh = inject(backbone.vit, method, recipe, stream(spec.seed, "initial values"), examples)
    if recipe.precision == "bf16":
        store_frozen_as(fresh.vit, torch.bfloat16)
    injected, anew = live.take(fresh, _kind(spec))
    vit = injected.vit
    head = _head(backbone.vit.num_features, data.classes, recipe, stream(spec.seed, "head")).to(device)

    def features(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16) if recipe.precision == "bf16" else nullcontext():
            return live.features(normalise(batch)).float()

    flips = torch.Generator().manual_seed(stream(spec.seed, "flips"))

    def logits(index: Tensor) -> Tensor:
        return head(features(random_flip(images[index], flips) if recipe.augmentation == "flip" else images[index]))

    from_cache = method.frozen_features and recipe.augmentation == "none"
    shape = (EVAL_BATCH if from_cache else len(batches(labels, recipe)[0]), *images.shape[1:])
    compile_seconds = live.warm_up(features, shape, (EVAL_BATCH, *images.shape[1:])) if anew and live.compiles else 0.0
    started = now(device)
    if from_cache:
        vit.eval()
        with torch.no_grad():
            parts = images.split(EVAL_BATCH)
            cached = torch.cat([live.filled(features, part, EVAL_BATCH) for part in parts])
        losses = _fit(head, lambda index: head(cached[index]), labels, method, injected, spec, tell)
    else:
        losses = _fit(nn.ModuleList([vit, head]), logits, labels, method, injected, spec, tell)
    seen = len(losses) * sum(len(batch) for batch in batches(labels, recipe))
    return Trained(injected, head, features, losses, seen, now(device) - started, compile_seconds)


def _fit(
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    labels: Tensor,
    method: Method,
    injected: Injected,
    spec: RunSpec,
    tell: Tell,
) -> list[float]:
    """The one training loop.  logits: indices of training images [b] -> [b, k].  Returns the loss of each epoch."""
    recipe, device = spec.recipe, labels.device
    torch.manual_seed(stream(spec.seed, "dropout"))
    order = torch.Generator().manual_seed(stream(spec.seed, "permutations"))
    optimizer = optimizer_for(model, recipe)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    epochs, steps = total_epochs(recipe), len(batches(labels, recipe))
    model.train()
    losses: list[float] = []
    for epoch in range(epochs):
        total = torch.zeros((), device=device)
        permutation = torch.randperm(len(labels), generator=order).to(device)
        for step, index in enumerate(batches(permutation, recipe)):
            lr = learning_rate(recipe, epoch if recipe.schedule_per == "epoch" else epoch + step / steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss = F.cross_entropy(logits(index), labels[index], label_smoothing=recipe.label_smoothing)
            if (extra := method.penalty(injected.vit)) is not None:
                loss = loss + extra
            loss.backward()
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
            optimizer.step()
            method.after_step(injected.vit, epoch * steps + step + 1, epochs * steps)
            optimizer.zero_grad()
            total += loss.detach()
        losses.append(float(total) / steps)
        if not math.isfinite(losses[-1]):
            raise Diverged(f"the training loss is {losses[-1]} in epoch {epoch + 1} of {epochs}; try a smaller lr")
        tell("train", epoch + 1, epochs)
    return losses


@torch.no_grad()
def predict(trained: Trained, images: np.ndarray, live: Live, tell: Tell) -> np.ndarray:
    """images: memory-mapped [n, 3, h, w] uint8, read a batch at a time; returns [n] class indices."""
    trained.injected.vit.eval()
    predictions = []
    for start in range(0, len(images), EVAL_BATCH):
        batch = torch.from_numpy(np.array(images[start : start + EVAL_BATCH])).to(live.device)
        features = live.filled(trained.features, batch, EVAL_BATCH)
        predictions.append(trained.head(features).argmax(dim=1).cpu())
        tell("test", min(start + EVAL_BATCH, len(images)), len(images))
    return torch.cat(predictions).numpy()


def _head(features: int, classes: int, recipe: Recipe, seed: int) -> nn.Linear:
    """The classifier; always the engine's, never the method's."""
    head = nn.Linear(features, classes)
    nn.init.zeros_(head.bias)
    if recipe.head_init == "zeros":
        nn.init.zeros_(head.weight)
    else:
        nn.init.trunc_normal_(head.weight, std=0.02, a=-0.04, b=0.04, generator=torch.Generator().manual_seed(seed))
    return head


def _kind(spec: RunSpec) -> str:
    """Names all that a cell's model is made of, but for values: cells of one kind share compiled code."""
    recipe = spec.recipe
    return canonical_json(
        {
            "backbone": [spec.backbone.name, spec.backbone.sha256, recipe.image_size],
            "method": spec.method.hashed(),
            "recipe": [recipe.drop_path, recipe.branch_dropout, recipe.precision],
        }
    )


def stream(seed: int, use: str) -> int:
    """A generator seed of its own for each use of randomness."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{use}".encode()).digest()[:6], "big")
