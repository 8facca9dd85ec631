"""The one training loop.

A batch that does not fit into memory is taken in parts: the loss is still the mean over the whole batch, and the
gradients are summed before the optimiser's one step, so nothing but rounding and the draws of dropout and drop-path
differ.  (No part of a ViT looks across the images of a batch.)  There is no host synchronisation inside an epoch.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...methods import Method
from ..spec import Recipe
from .errors import divergence
from .evaluate import ProgressFn
from .injection import Injected
from .optim import batches, learning_rate, optimizer_for, total_epochs


def fit(
    model: nn.Module,
    pick: Callable[[Tensor], Tensor],
    logits: Callable[[Tensor], Tensor],
    labels: Tensor,
    method: Method,
    injected: Injected,
    recipe: Recipe,
    part: int,
    seeds: tuple[int, int],
    tell: ProgressFn,
    after_epoch: Callable[[], None],
) -> list[float]:
    """Train what is trainable in `model`; returns the loss of each epoch.

    pick: indices of training images [b] -> inputs [b, ...], augmented.  logits: inputs -> [b, k].
    part: inputs at most in one forward and backward pass.  seeds: of dropout, and of the permutations.

    Raises:
        Diverged: the loss became infinite or not a number; noticed at the end of the epoch.
    """
    torch.manual_seed(seeds[0])
    order = torch.Generator().manual_seed(seeds[1])
    optimizer = optimizer_for(model, recipe)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    epochs, steps = total_epochs(recipe), len(batches(labels, recipe))
    losses: list[float] = []
    for epoch in range(epochs):
        model.train()  # again: `after_epoch` may have evaluated
        total, each = torch.zeros((), device=labels.device), torch.zeros(steps, device=labels.device)
        permutation = torch.randperm(len(labels), generator=order).to(labels.device)
        for step, index in enumerate(batches(permutation, recipe)):
            lr = learning_rate(recipe, epoch if recipe.schedule_per == "epoch" else epoch + step / steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            penalty = partial(method.penalty, injected.vit)
            loss = backward(trained, pick(index), labels[index], logits, penalty, recipe.label_smoothing, part)
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
            optimizer.step()
            method.after_step(injected.vit, epoch * steps + step + 1, epochs * steps)
            optimizer.zero_grad()
            total += loss
            each[step] = loss
        losses.append(float(total) / steps)
        if not math.isfinite(losses[-1]):
            raise divergence(each.tolist(), epoch, epochs, recipe.lr)
        tell("train", epoch + 1, epochs)
        after_epoch()
    return losses


def backward(
    trained: Sequence[nn.Parameter],
    inputs: Tensor,
    labels: Tensor,
    logits: Callable[[Tensor], Tensor],
    penalty: Callable[[], Tensor | None],
    smoothing: float,
    part: int,
) -> Tensor:
    """Add the gradients of a batch's mean loss and penalty, `part` inputs at a time; returns that loss []."""
    whole = torch.zeros((), device=labels.device)
    parts = list(zip(inputs.split(part), labels.split(part), strict=True))
    for number, (some, theirs) in enumerate(parts, 1):
        loss = F.cross_entropy(logits(some), theirs, label_smoothing=smoothing) * (len(some) / len(inputs))
        if number == len(parts) and (extra := penalty()) is not None:
            loss = loss + extra
        loss.backward()
        if number == 1 < len(parts):  # a CUDA graph writes its gradients to the same place in each pass
            for parameter in trained:
                parameter.grad = None if parameter.grad is None else parameter.grad.clone()
        whole += loss.detach()
    return whole
