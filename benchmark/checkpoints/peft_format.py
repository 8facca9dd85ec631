"""Export trained models as LoRA factors in the format of Hugging Face peft, for the plain timm model.

timm's fused qkv is one linear layer for peft, so updates of q and v become one update of qkv with zero rows for k:
[dQ; 0; dV] = B A has the summed rank of its parts, at most 16 for two updates of rank 8.  The factors come from the
singular value decomposition of the update.  Therefore any low-rank change of linear layers can be exported: LoRA and
its variants, AOFT, FacT, and adapters that merge into the layer before them.  DoRA's row scaling exists in peft too,
and changed biases become `lora_bias`.
"""

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...methods.dora import Decomposed
from ...methods.updates import TransformedLinear
from ..engine.eva import is_from_eva
from .restore import TrainedModel, head_name, with_head

RESOLUTION = 1e-7
"""Singular values below this fraction of the largest are dropped as rounding errors of fp32."""


@dataclass(frozen=True)
class _Change:
    """Change of a linear layer, in float64."""

    weight: Tensor
    """[out, in] low-rank update."""
    bias: Tensor | None
    """[out] update of the bias; None if unchanged."""
    magnitude: Tensor | None
    """[out] row lengths of DoRA; None for other methods."""


def lora(model: TrainedModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return peft's configuration and the tensors with peft's names.

    Raises:
        ValueError: The model is more than a low-rank change of linear layers; the message says why.
    """
    if is_from_eva(model.backbone.vit):
        reason = "timm's Eva computes queries, keys and values without the layer that peft would replace"
        raise ValueError(f"{reason}; use --as merged or --as adapter")
    changes = _changes(model)
    factors = {name: _factors(name, change.weight, model) for name, change in changes.items()}
    ranks = {name: len(down) for name, (down, _) in factors.items()}
    has_bias = any(change.bias is not None for change in changes.values())
    has_magnitude = any(change.magnitude is not None for change in changes.values())
    head = head_name(with_head(model.backbone, model.backbone.vit, model.checkpoint.head))
    tensors: dict[str, Tensor] = {
        f"{head}.{part}": tensor for part, tensor in model.checkpoint.head.state_dict().items()
    }
    for name, change in changes.items():
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = factors[name]
        if has_bias:
            tensors[f"{name}.lora_B.bias"] = torch.zeros(len(change.weight)) if change.bias is None else change.bias
        if change.magnitude is not None:
            tensors[f"{name}.lora_magnitude_vector"] = change.magnitude
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": model.spec.backbone.name,
        "inference_mode": True,
        "r": max(ranks.values()),
        "lora_alpha": max(ranks.values()),  # alpha / r = 1: scales are in the factors
        "rank_pattern": {name.replace(".", r"\."): rank for name, rank in ranks.items()},
        "alpha_pattern": {name.replace(".", r"\."): rank for name, rank in ranks.items()},
        "lora_dropout": 0.0,
        "bias": "none",
        "lora_bias": has_bias,
        "use_dora": has_magnitude,
        "target_modules": sorted(changes),
        "modules_to_save": [head],
    }
    return config, {f"base_model.model.{n}": t.detach().float().contiguous() for n, t in tensors.items()}


def _changes(model: TrainedModel) -> dict[str, _Change]:
    """Return the changed linear layers with their changes."""
    plain, merged = model.backbone.vit.state_dict(), model.merged(torch.float64).state_dict()
    moved = [n for n in merged if n not in plain or not torch.equal(merged[n], plain[n].double())]
    linears = {name for name, module in model.backbone.vit.named_modules() if isinstance(module, nn.Linear)}
    strange = [name for name in moved if name not in plain or name.rpartition(".")[0] not in linears]
    if strange:
        raise ValueError(
            f"{model.spec.method.spec} also changes {', '.join(strange[:3])}, and peft's LoRA supports only "
            "linear layers; use --as merged"
        )
    if not moved:
        raise ValueError(
            f"{model.spec.method.spec} changes no linear layer, so peft has nothing to load; use --as adapter"
        )
    injected, found = dict(model.injected.vit.named_modules()), {}
    for name in dict.fromkeys(name.rpartition(".")[0] for name in moved):
        weight, bias = f"{name}.weight", f"{name}.bias"
        delta, magnitude = merged[weight] - plain[weight].double(), None
        if (directions := _directions(injected.get(name), plain[weight])) is not None:
            delta, magnitude = directions, merged[weight].norm(dim=1)
        shift = merged[bias] - plain[bias].double() if bias in moved else None
        found[name] = _Change(delta, shift, magnitude)
    return found


def _directions(module: nn.Module | None, weight: Tensor) -> Tensor | None:
    """Return DoRA's update [out, in] before rows are rescaled; None for other methods."""
    if not isinstance(module, TransformedLinear):
        return None
    if not all(isinstance(transform, Decomposed) for transform in module.transforms.values()):
        return None
    added = torch.zeros_like(weight, dtype=torch.float64)
    for part, rows in zip(module.parts, added.chunk(len(module.parts)), strict=True):
        if part in module.transforms:
            rows += cast(Decomposed, copy.deepcopy(module.transforms[part]).double()).direction.delta().detach()
    return added


def _factors(name: str, delta: Tensor, model: TrainedModel) -> tuple[Tensor, Tensor]:
    """Return A [r, in] and B [out, r] with B A = delta; a zero update has rank 1, because peft needs r >= 1.

    Raises:
        ValueError: The factors are larger than the weight itself.
    """
    u, s, vh = torch.linalg.svd(delta, full_matrices=False)
    rank = max(1, int((s > RESOLUTION * s[0]).sum()))
    if rank * sum(delta.shape) > delta.numel():
        raise ValueError(
            f"{model.spec.method.spec} changes {name} by a matrix of rank {rank}, whose factors are larger than the "
            "weight itself; use --as merged"
        )
    root = s[:rank].sqrt()
    return root[:, None] * vh[:rank], u[:, :rank] * root
