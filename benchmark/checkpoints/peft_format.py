"""A trained cell as LoRA factors in the format of Hugging Face peft, for the plain timm model.

peft knows timm's fused qkv as one linear map, so q and v of a cell become one update of qkv whose rows of k are zero:
[dQ; 0; dV] = B A with the rank of the whole, for two sites of rank 8 at most 16.  The factors are made from the
update itself, by its singular value decomposition, so that anything is exported alike that is a low-rank change of
linear maps, whatever made it: LoRA and its variants, AOFT, FacT, adapters that fold into the map before them.
DoRA's rows are scaled on top of that; peft has that too.  Changed biases are peft's `lora_bias`.
"""

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...methods.dora import Decomposed
from ...methods.updates import TransformedLinear
from .restore import TrainedModel, head_name, with_head

RESOLUTION = 1e-7
"""Singular values below this share of the largest are left out: fp32 factors could not tell them from rounding."""


@dataclass(frozen=True)
class _Change:
    """What happened to a linear map, in float64."""

    weight: Tensor
    """[out, in], of low rank."""
    bias: Tensor | None
    """[out]; None where it stayed."""
    magnitude: Tensor | None
    """[out], DoRA's row lengths; None elsewhere."""


def lora(cell: TrainedModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """peft's configuration, and the tensors by peft's names.

    Raises:
        ValueError: the cell is more than a low-rank change of linear maps; the message says what.
    """
    changes = _changes(cell)
    factors = {name: _factors(name, change.weight, cell) for name, change in changes.items()}
    ranks = {name: len(down) for name, (down, _) in factors.items()}
    has_bias = any(change.bias is not None for change in changes.values())
    has_magnitude = any(change.magnitude is not None for change in changes.values())
    head = head_name(with_head(cell.backbone, cell.backbone.vit, cell.kept.head))
    tensors: dict[str, Tensor] = {f"{head}.{part}": tensor for part, tensor in cell.kept.head.state_dict().items()}
    for name, change in changes.items():
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = factors[name]
        if has_bias:
            tensors[f"{name}.lora_B.bias"] = torch.zeros(len(change.weight)) if change.bias is None else change.bias
        if change.magnitude is not None:
            tensors[f"{name}.lora_magnitude_vector"] = change.magnitude
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": cell.spec.backbone.name,
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


def _changes(cell: TrainedModel) -> dict[str, _Change]:
    """Linear map -> its change, those that changed."""
    plain, merged = cell.backbone.vit.state_dict(), cell.merged(torch.float64).state_dict()
    moved = [n for n in merged if n not in plain or not torch.equal(merged[n], plain[n].double())]
    linears = {name for name, module in cell.backbone.vit.named_modules() if isinstance(module, nn.Linear)}
    strange = [name for name in moved if name not in plain or name.rpartition(".")[0] not in linears]
    if strange:
        raise ValueError(
            f"{cell.spec.method.spec} also changes {', '.join(strange[:3])}, and peft's LoRA is linear maps only; "
            "use --as merged"
        )
    if not moved:
        raise ValueError(
            f"{cell.spec.method.spec} changes no linear map, so peft has nothing to load; use --as adapter"
        )
    injected, found = dict(cell.injected.vit.named_modules()), {}
    for name in dict.fromkeys(name.rpartition(".")[0] for name in moved):
        weight, bias = f"{name}.weight", f"{name}.bias"
        delta, magnitude = merged[weight] - plain[weight].double(), None
        if (directions := _directions(injected.get(name), plain[weight])) is not None:
            delta, magnitude = directions, merged[weight].norm(dim=1)
        shift = merged[bias] - plain[bias].double() if bias in moved else None
        found[name] = _Change(delta, shift, magnitude)
    return found


def _directions(module: nn.Module | None, weight: Tensor) -> Tensor | None:
    """[out, in], what DoRA adds to a weight before it sets the lengths of the rows; None where that is not DoRA."""
    if not isinstance(module, TransformedLinear):
        return None
    if not all(isinstance(transform, Decomposed) for transform in module.transforms.values()):
        return None
    added = torch.zeros_like(weight, dtype=torch.float64)
    for part, rows in zip(module.parts, added.chunk(len(module.parts)), strict=True):
        if part in module.transforms:
            rows += cast(Decomposed, copy.deepcopy(module.transforms[part]).double()).direction.delta().detach()
    return added


def _factors(name: str, delta: Tensor, cell: TrainedModel) -> tuple[Tensor, Tensor]:
    """A [r, in] and B [out, r] with B A = delta; a change of zero gets rank 1, as peft knows no rank 0.

    Raises:
        ValueError: the factors would take more numbers than the weight itself.
    """
    u, s, vh = torch.linalg.svd(delta, full_matrices=False)
    rank = max(1, int((s > RESOLUTION * s[0]).sum()))
    if rank * sum(delta.shape) > delta.numel():
        raise ValueError(
            f"{cell.spec.method.spec} changes {name} by a matrix of rank {rank}, whose factors are larger than the "
            "weight itself; use --as merged"
        )
    root = s[:rank].sqrt()
    return root[:, None] * vh[:rank], u[:, :rank] * root
