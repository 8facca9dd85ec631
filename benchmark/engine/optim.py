"""Optimiser, learning-rate schedule and batches of a recipe."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..spec import Recipe


def make_optimizer(
    model: nn.Module, recipe: Recipe, lr_factors: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for all trainable parameters of `model`.

    lr_factors: see `Method.lr_factors`; each group has one, under the key `lr_factor`.
    """
    factors = lr_factors or {}
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_decayed = _has_weight_decay(model, name, parameter, recipe)
            found.setdefault((factors.get(parameter, 1.0), not is_decayed), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": params, "weight_decay": 0.0 if undecayed else recipe.weight_decay, "lr_factor": factor}
        for (factor, undecayed), params in sorted(found.items(), key=lambda item: item[0])
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def _has_weight_decay(model: nn.Module, name: str, parameter: nn.Parameter, recipe: Recipe) -> bool:
    match recipe.decayed:
        case "all":
            return True
        case "matrices":
            return parameter.ndim >= 2
        case "no biases, no norms":
            owner, _, own_name = name.rpartition(".")
            return "bias" not in own_name and not isinstance(model.get_submodule(owner), nn.LayerNorm)


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Return the rate at `epoch`, from 0 and fractional inside an epoch.

    The schedule is a linear warm-up, a cosine from `lr` to `min_lr`, which `cosine_epochs` stretches, then `min_lr`.
    """
    epoch = max(epoch - recipe.schedule_lag, 0)
    if epoch < recipe.warmup_epochs:
        steps = recipe.warmup_epochs - (recipe.warmup_until == "last epoch")
        return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * (min(epoch / steps, 1.0) if steps > 0 else 1.0)
    top = recipe.warmup_epochs if recipe.cosine_from == "warmup" else 0.0
    span = (recipe.epochs if recipe.cosine_epochs is None else recipe.cosine_epochs) - top
    progress = min((epoch - top) / span, 1.0) if span else 1.0
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def total_epochs(recipe: Recipe) -> int:
    """Return the number of epochs, cool-down included."""
    return recipe.epochs + math.ceil(recipe.cooldown_epochs)


def split_batches(permutation: Tensor, recipe: Recipe) -> list[Tensor]:
    """Split the permutation of one epoch into batches; a set smaller than a batch is one batch."""
    batches = list(permutation.split(recipe.batch_size))
    if recipe.drop_last and len(batches) > 1 and len(batches[-1]) < recipe.batch_size:
        batches.pop()
    return batches
