"""One run from spec to result: inject the method, train, evaluate once.  Read it from top to bottom.

The training images stay on the device as uint8; crops, flips, resizing and normalisation happen there.  Each random
stream has its own seed, so a run depends on its spec alone, not on earlier runs in the process.

A batch that does not fit into memory is split into micro-batches.  The loss is still the mean over the whole batch and
gradients are summed before the optimiser step, so results differ by rounding and the draws of dropout only.  No part
of a ViT mixes the images of a batch; methods that do are never split (`Method.needs_whole_batch`).  Within an epoch the
host never waits for the device.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...datasets.cache import CachedTask
from ...methods import Method
from ...methods.initial_values import trunc_normal_
from ..spec import Recipe, RunSpec
from ..storage.predictions import per_class_accuracy
from .backbone import Backbone
from .epoch import EpochFacts
from .errors import WHOLE_BATCH, OutOfMemory, divergence, is_oom, loss_term, one_line_message
from .evaluate import ProgressFn, map_batches, no_progress, predict, warm_up_evaluation
from .fast_path import make_fast
from .injection import Injected, inject, wants_examples
from .live_model import LiveModel
from .optim import learning_rate, make_optimizer, split_batches, total_epochs
from .random_streams import Stream, derive_seed
from .timing import now, peak_memory, reset_peak_memory
from .transforms import preprocess, random_crop, random_flip


@dataclass(frozen=True)
class RunResult:
    """Measurements of one run, as stored in its record."""

    accuracy: float
    """Accuracy in [0, 1] on the evaluation split, of the unmerged model after the last epoch."""
    per_class_accuracy: list[float | None]
    """None for a class without an example in the split."""
    loss_curve: list[float]
    """Mean training loss of each epoch."""
    trainable_params: int
    """Trainable parameters without the head."""
    head_params: int
    total_params: int
    """Parameters of backbone, method and head."""
    adapter_bytes: int
    """Size, as a safetensors file, of all tensors that the method added or changed."""
    train_seconds: float
    eval_seconds: float
    compile_seconds: float
    """Compilation before training; zero if the code of an earlier run is reused."""
    images_per_second: float
    """Training images divided by `train_seconds`."""
    peak_bytes: int
    """Peak GPU memory allocated, or on a CPU the peak resident set of the process, during this run.  Memory of CUDA
    graphs counts for the run that captured them, not for those that replay them."""
    oracle_accuracy: float | None
    """Accuracy of the best epoch, selected on the evaluation split; None unless requested, and never ranked."""
    oracle_epoch: int | None
    """Number of that epoch, from 1."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the record."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """Model and measurements after the last epoch."""

    injected: Injected
    head: nn.Linear
    loss_curve: list[float]
    epoch_accuracies: list[float]
    """Accuracy on the evaluation split after each epoch, in [0, 1]; empty unless requested."""
    images_seen: int
    train_seconds: float
    compile_seconds: float


def train_and_evaluate(
    spec: RunSpec,
    method: Method,
    backbone: Backbone,
    data: CachedTask,
    live: LiveModel,
    progress: ProgressFn = no_progress,
    *,
    evaluate_each_epoch: bool = False,
    on_trained: Callable[[Trained], None] | None = None,
    on_logits: Callable[[Tensor], None] | None = None,
) -> tuple[RunResult, np.ndarray]:
    """Train a run and evaluate it once, after the last epoch.

    Method, backbone and data are those of the spec.  `evaluate_each_epoch` also reports the best epoch, `on_trained`
    receives the trained model, and `on_logits` the logits of its evaluation as `predict` gives them.  Returns the
    result and the predictions [n], in the order of the split.

    Raises:
        Diverged: the loss or the logits of the trained model are not finite.
        OutOfMemory: not even one image at a time fits, or the method needs whole batches.
        ValueError: a micro-batch is asked for, and the method needs whole batches.
    """
    device, batch = live.device, spec.recipe.batch_size
    while True:
        reset_peak_memory(device)
        try:
            trained = train(spec, method, backbone, data, live, progress, evaluate_each_epoch)
            break
        except Exception as error:
            if not is_oom(error):
                raise
            reason = one_line_message(error)
        if method.needs_whole_batch:
            raise OutOfMemory(f"{reason}; {method.spec()} {WHOLE_BATCH}. Use --checkpointing or a recipe in bf16")
        # Start again: this is exactly the run that `--micro-batch` would give.  Here the traceback holds no tensors.
        live.halve("micro_batch", min(live.numerics.micro_batch or batch, batch), reason)

    started = now(device)
    labels = data.labels(spec.split)  # the first access to the evaluation split, unless evaluated in each epoch
    predictions = predict(live, trained.head, data.images(spec.split), progress, on_logits)
    correct = predictions == labels
    best = max(trained.epoch_accuracies, default=None)
    head_params = sum(p.numel() for p in trained.head.parameters())
    result = RunResult(
        accuracy=float(correct.mean()),
        per_class_accuracy=per_class_accuracy(correct, labels, data.classes),
        loss_curve=trained.loss_curve,
        trainable_params=trained.injected.trainable_params(),
        head_params=head_params,
        total_params=sum(p.numel() for p in trained.injected.vit.parameters()) + head_params,
        adapter_bytes=trained.injected.adapter_bytes(),
        train_seconds=trained.train_seconds,
        eval_seconds=now(device) - started,
        compile_seconds=trained.compile_seconds,
        images_per_second=trained.images_seen / trained.train_seconds,
        peak_bytes=peak_memory(device),
        oracle_accuracy=best,
        oracle_epoch=None if best is None else 1 + trained.epoch_accuracies.index(best),
    )
    if on_trained is not None:
        on_trained(trained)
    return result, predictions


def train(
    spec: RunSpec,
    method: Method,
    backbone: Backbone,
    data: CachedTask,
    live: LiveModel,
    progress: ProgressFn = no_progress,
    evaluate_each_epoch: bool = False,
) -> Trained:
    """Train one run; raise `Diverged` if the mean loss of an epoch is not finite.

    `evaluate_each_epoch` finds the best test epoch, which many papers report, to show how much this habit gains.  It
    draws no random numbers, so training is unchanged.
    """
    recipe, device = spec.recipe, live.device

    # Data, model and head
    train_set = TrainSet(data, spec, backbone.image_size, device)
    examples = train_set.examples() if wants_examples(method) else None
    fresh = inject(backbone.vit, method, recipe, derive_seed(spec.seed, Stream.INITIAL_VALUES), examples)
    make_fast(fresh.vit, recipe.precision, device.type)
    injected, is_new = live.load(fresh, spec, backbone.image_size)
    vit = injected.vit
    head = make_head(vit.num_features, data.classes, recipe, derive_seed(spec.seed, Stream.HEAD)).to(device)

    # Compilation, before the clock starts
    batch_size = len(split_batches(train_set.labels, recipe)[0])
    micro_batch = min(live.numerics.micro_batch or batch_size, batch_size)
    if method.needs_whole_batch and micro_batch < batch_size:
        raise ValueError(f"{method.spec()} {WHOLE_BATCH}: leave out --micro-batch")
    cache_features = method.frozen_features and recipe.augmentation == "none"
    compile_seconds = 0.0
    if is_new and live.compiles:
        image_shape = train_set.inputs.shape[1:]
        compile_seconds += warm_up_evaluation(live, image_shape)  # first: if it does not fit, all graphs are dropped
        compile_seconds += 0.0 if cache_features else live.warm_up_training((method.copies * micro_batch, *image_shape))

    started = now(device)
    if cache_features:  # the frozen backbone runs once, and the head trains on its features
        train_set.cache_features(live)
        micro_batch = batch_size
    model = head if cache_features else nn.ModuleList([vit, head])
    cross_entropy = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    optimizer = make_optimizer(model, recipe, method.lr_factors(vit))
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    torch.manual_seed(derive_seed(spec.seed, Stream.DROPOUT))
    permutations = torch.Generator().manual_seed(derive_seed(spec.seed, Stream.PERMUTATIONS))
    epochs, steps = total_epochs(recipe), len(split_batches(train_set.labels, recipe))
    images_per_epoch = sum(len(batch) for batch in split_batches(train_set.labels, recipe))
    loss_curve: list[float] = []
    epoch_accuracies: list[float] = []
    evaluation_seconds, rate = 0.0, recipe.lr

    for epoch in range(epochs):
        epoch_began, accuracy = time.perf_counter(), None
        model.train()  # an evaluation after the previous epoch has changed the mode
        epoch_loss, step_losses = torch.zeros((), device=device), torch.zeros(steps, device=device)
        permutation = torch.randperm(len(train_set), generator=permutations).to(device)
        for step, index in enumerate(split_batches(permutation, recipe)):
            # Schedule
            rate = learning_rate(recipe, epoch if recipe.schedule_per == "epoch" else epoch + step / steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_factor"]

            # Batch and augmentation
            inputs, labels = train_set.batch(index)

            # Forward, loss and backward, one micro-batch at a time
            loss = torch.zeros((), device=device)
            for start in range(0, len(index), micro_batch):
                part = slice(start, start + micro_batch)
                images = inputs[part] if method.copies == 1 else torch.cat([inputs[part]] * method.copies)
                features = images if cache_features else live.features(images)
                part_loss = loss_term(method, "loss", method.loss(vit, head(features), labels[part], cross_entropy))
                part_loss = part_loss * (len(labels[part]) / len(index))
                is_last = start + micro_batch >= len(index)
                if is_last and (penalty := method.penalty(vit)) is not None:
                    part_loss = part_loss + loss_term(method, "penalty", penalty)
                part_loss.backward()
                if start == 0 and not is_last:  # the next replay of a CUDA graph overwrites its gradients
                    for parameter in trainable:
                        parameter.grad = None if parameter.grad is None else parameter.grad.clone()
                loss += part_loss.detach()

            # Step
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(trainable, recipe.clip_norm)
            if recipe.clip_value is not None:
                nn.utils.clip_grad_value_(trainable, recipe.clip_value)
            optimizer.step()
            method.after_step(vit, epoch * steps + step + 1, epochs * steps)
            optimizer.zero_grad()
            epoch_loss += loss
            step_losses[step] = loss

        loss_curve.append(float(epoch_loss) / steps)
        if not math.isfinite(loss_curve[-1]):
            raise divergence(step_losses.tolist(), epoch, epochs, recipe.lr)
        seconds = time.perf_counter() - epoch_began  # the device is done: the loss has arrived
        if evaluate_each_epoch:
            paused = now(device)
            predictions = predict(live, head, data.images(spec.split))
            epoch_accuracies.append(accuracy := float((predictions == data.labels(spec.split)).mean()))
            evaluation_seconds += now(device) - paused
        progress("train", epoch + 1, epochs, EpochFacts(loss_curve[-1], rate, images_per_epoch, seconds, accuracy))

    images_seen = epochs * images_per_epoch
    train_seconds = now(device) - started - evaluation_seconds
    return Trained(injected, head, loss_curve, epoch_accuracies, images_seen, train_seconds, compile_seconds)


class TrainSet:
    """Augmented training images on the device, those of `CachedTask.training_splits`."""

    def __init__(self, data: CachedTask, spec: RunSpec, image_size: int, device: torch.device) -> None:
        splits = data.training_splits(spec.split)
        self.spec, self.image_size = spec, image_size
        self.inputs = torch.from_numpy(np.concatenate([data.images(s) for s in splits])).to(device)
        """uint8 [n, 3, h, w] as cached, or features [n, d] after `cache_features`"""
        self.labels = torch.from_numpy(np.concatenate([data.labels(s) for s in splits])).to(device)  # [n]
        self._crops = torch.Generator().manual_seed(derive_seed(spec.seed, Stream.CROPS))
        self._flips = torch.Generator().manual_seed(derive_seed(spec.seed, Stream.FLIPS))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the augmented images [b, 3, h, w] and labels [b] at `index` [b]."""
        images, augmentation = self.inputs[index], self.spec.recipe.augmentation
        if augmentation == "crop_flip":
            images = random_crop(images, self.image_size, self._crops)
        if augmentation in ("flip", "crop_flip"):
            images = random_flip(images, self._flips)
        return images, self.labels[index]

    def examples(self) -> tuple[Tensor, Tensor]:
        """Return all images, normalised and not augmented, and labels, for methods that prepare with them."""
        return preprocess(self.inputs, self.image_size, self.spec), self.labels

    @torch.no_grad()
    def cache_features(self, live: LiveModel) -> None:
        """Replace the images by the features of the loaded backbone."""
        live.vit.eval()
        batches = map_batches(lambda batch: live.padded_features(self.inputs[batch]), len(self), live)
        self.inputs = torch.cat(list(batches))


def make_head(features: int, classes: int, recipe: Recipe, seed: int) -> nn.Linear:
    """Return the classifier; the engine makes it the same way for every method."""
    head = nn.Linear(features, classes)
    nn.init.zeros_(head.bias)
    generator = torch.Generator().manual_seed(seed)
    match recipe.head_init:
        case "zeros":
            nn.init.zeros_(head.weight)
        case "trunc_normal":
            trunc_normal_(head.weight, limit=0.04, generator=generator)
        case "normal":
            nn.init.normal_(head.weight, std=0.01, generator=generator)
        case "uniform":
            nn.init.uniform_(head.weight, -(features**-0.5), features**-0.5, generator=generator)
        case "kaiming":
            nn.init.normal_(head.weight, std=(2 / classes) ** 0.5, generator=generator)
    return head
