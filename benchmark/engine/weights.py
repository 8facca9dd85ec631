"""Match a file of weights with the architecture, then load it.

timm resamples what does not fit: patch embeddings of another patch size, positions of another image size.  So the file
is compared with the model before timm adapts it.  Only positions may differ; a note says so.
"""

import json
import re
from dataclasses import dataclass, fields
from math import isqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from timm.models import eva, swin_transformer, vision_transformer
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ...datasets.reading import read_text
from ...datasets.task import DataError
from ...methods.anatomy import VisionModel
from . import hf_layout
from .errors import BackboneError
from .weight_files import hash_and_format, read

CLASSIFIER = ("head", "head_dist", "pre_logits", "fc")
"""First parts of names that belong to a classifier."""


def load_weights(vit: VisionModel | Eva, file: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """Load the weights of a file into `vit`; return the file's SHA-256 and remarks for the user.

    Raises:
        BackboneError: the file cannot be read, or its weights do not fit `vit` or are not finite.
    """
    sha256, kind = hash_and_format(file)
    try:
        notes = _load_npz(vit, file) if kind == "npz" else _load_state(vit, name, file, *read(file, kind))
    except _Unfit as error:
        raise BackboneError(f"weights {file} do not fit {name}: {error}") from None
    return sha256, tuple(notes)


class _Unfit(Exception):
    """The weights do not fit the model."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of a model that its tensors show; None where they do not."""

    patch_size: tuple[int, ...] | None
    channels: int | None
    width: int | None
    depth: tuple[int, ...]
    """Number of blocks of each stage."""
    heads: int | None = None
    class_tokens: int = 0
    distillation_tokens: int = 0
    registers: int = 0

    def difference(self, model: "Architecture") -> str:
        """Return in words how this file differs from a model; empty if it does not."""
        pairs = [(f.name, getattr(self, f.name), getattr(model, f.name)) for f in fields(self)]
        return "; ".join(
            f"{name.replace('_', ' ')} {_text(ours)} instead of {_text(theirs)}"
            for name, ours, theirs in pairs
            if ours != theirs and None not in (ours, theirs)
        )


def _text(value: int | tuple[int, ...]) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return " x ".join(map(str, dict.fromkeys(values) if len(values) == 2 else values))


def architecture_of(state: dict[str, Tensor]) -> Architecture:
    """Read the architecture from tensors in timm's names."""
    stages: dict[int, int] = {}
    for name in state:
        if found := re.match(r"(?:layers\.(\d+)\.)?blocks\.(\d+)\.", name):
            stage = int(found[1] or 0)
            stages[stage] = max(stages.get(stage, 0), int(found[2]) + 1)
    patches = state.get("patch_embed.proj.weight")  # [d, c, p, p]
    sizes = () if patches is None else tuple(patches.shape)
    seen = len(sizes) == 4
    return Architecture(
        patch_size=sizes[2:] if seen else None,
        channels=sizes[1] if seen else None,
        width=sizes[0] if sizes else None,
        depth=tuple(depth for _, depth in sorted(stages.items())),
        class_tokens=int("cls_token" in state),
        distillation_tokens=int("dist_token" in state),
        registers=state["reg_token"].shape[-2] if "reg_token" in state else 0,
    )


def _load_state(vit: VisionModel | Eva, name: str, file: Path, state: dict[str, Tensor], notes: list[str]) -> list[str]:
    left_out: list[str] = []
    if isinstance(vit, VisionTransformer) and hf_layout.is_hugging_face(state):
        state, left_out = hf_layout.in_timm_names(state)
        _check_heads(vit, file.with_name("config.json"))
    try:
        named = state if isinstance(vit, SwinTransformer) else _in_timm_names(vit, name, state)
    except Exception as error:  # timm converts many layouts and expects their tensors
        raise _Unfit(f"timm cannot convert their names ({type(error).__name__}: {error})") from None
    _check_architecture(architecture_of(named), architecture_of(vit.state_dict()), named)
    notes = [*notes, *_position_notes(named, vit, file)]
    # With the classifier: its name tells timm before 1.0.31 the layout of Swin.
    adapted = _adapt(vit, name, named)
    left_out += [key for key in adapted if key.split(".")[0] in CLASSIFIER]
    adapted = {key: value for key, value in adapted.items() if key.split(".")[0] not in CLASSIFIER}
    for key, tensor in adapted.items():
        if not tensor.is_floating_point():
            raise _Unfit(f"{key} is {str(tensor.dtype).removeprefix('torch.')}; weights are floating-point numbers")
    _check_finite(adapted)
    try:
        vit.load_state_dict({key: value.float() for key, value in adapted.items()})
    except RuntimeError as error:  # lists tensors that are missing, unexpected or of another shape
        raise _Unfit(" ".join(str(error).split())[:400]) from None
    if left_out:
        notes.append(f"{file.name}: its classifier was left out ({', '.join(sorted(left_out))})")
    return notes


def _check_architecture(file: Architecture, model: Architecture, state: dict[str, Tensor]) -> None:
    if file.width is None:
        names = ", ".join(list(state)[:3])
        raise _Unfit(f"they have no tensor patch_embed.proj.weight, only {names} and others: another kind of model")
    if difference := file.difference(model):
        raise _Unfit(f"they are of another architecture: {difference}")


class _AnySize(int):
    """A size that equals every other, so that timm's conversion of names leaves tensors as they are."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def _in_timm_names(vit: VisionTransformer | Eva, name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of the layouts that timm converts (DINOv2, CLIP, I-JEPA, BEiT-3, ...), and adapt none."""
    if any(key.startswith("radio_model.") for key in state):  # timm renames and resamples it in one function
        return _adapt(vit, name, state)
    width, channels, *patch = cast(Tensor, vit.patch_embed.proj.weight).shape
    weight = SimpleNamespace(shape=(width, channels, *map(_AnySize, patch)))
    as_in_file = SimpleNamespace(
        patch_embed=SimpleNamespace(proj=SimpleNamespace(weight=weight), grid_size=_AnySize(0)),
        pos_embed=SimpleNamespace(shape=(1, _AnySize(0), width)),
        num_prefix_tokens=vit.num_prefix_tokens,
        no_embed_class=vit.no_embed_class,
        head=vit.head,
    )
    if isinstance(vit, Eva):
        as_in_file.get_parameter = vit.get_parameter
        return eva.checkpoint_filter_fn(dict(state), cast(Any, as_in_file))
    return vision_transformer.checkpoint_filter_fn(dict(state), cast(Any, as_in_file), adapt_layer_scale=True)


def _adapt(vit: VisionModel | Eva, name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let timm fit the positions to the image size, with the interpolation that it uses for this model."""
    if isinstance(vit, SwinTransformer):
        return cast(dict[str, Tensor], swin_transformer.checkpoint_filter_fn(state, vit))
    if isinstance(vit, Eva):
        return eva.checkpoint_filter_fn(state, vit)
    options: dict[str, Any] = {}
    if "flexi" in name or "radio" in name:  # timm's _create_vision_transformer
        options = {"interpolation": "bilinear", "antialias": False}
    if any(part in name for part in getattr(vision_transformer, "_RADIO_ALIGN_CORNERS", ())):
        options["align_corners"] = True
    return vision_transformer.checkpoint_filter_fn(state, vit, **options)


def _position_notes(state: dict[str, Tensor], vit: VisionModel | Eva, file: Path) -> list[str]:
    """Return a note if positions of another image size will be interpolated."""
    if isinstance(vit, SwinTransformer):
        own = vit.state_dict()
        windows = {
            (isqrt(len(state[key])) // 2 + 1, isqrt(len(own[key])) // 2 + 1)
            for key in own
            if key.endswith("relative_position_bias_table") and key in state and len(state[key]) != len(own[key])
        }
        changes = [f"windows of {old} to {new}" for old, new in sorted(windows)]
        return [_interpolated(file, " and ".join(changes))] if changes else []
    return _absolute(state["pos_embed"].shape[1], vit, file) if "pos_embed" in state else []


def _absolute(positions: int, vit: VisionTransformer | Eva, file: Path) -> list[str]:
    """Return a note if the number of positions differs from the model's.

    Raises:
        _Unfit: the positions are no square of patches and the model's prefix tokens.
    """
    grid = cast(tuple[int, int], vit.patch_embed.grid_size)
    prefix = 0 if vit.no_embed_class else cast(int, vit.num_prefix_tokens)
    side = isqrt(max(positions - prefix, 0))
    if positions - prefix == grid[0] * grid[1]:
        return []
    if side == 0 or side**2 + prefix != positions:
        raise _Unfit(f"pos_embed has {positions} positions, which are no square of patches and {prefix} other tokens")
    return [_interpolated(file, f"{side} x {side} to {grid[0]} x {grid[1]} patches")]


def _interpolated(file: Path, change: str) -> str:
    return f"{file.name}: positions were interpolated from {change}"


def _check_heads(vit: VisionTransformer, config: Path) -> None:
    """Compare the number of heads, which no tensor shows, with Hugging Face's configuration if it lies there."""
    try:
        heads = json.loads(read_text(config)).get("num_attention_heads")
    except (DataError, ValueError, AttributeError, RecursionError):
        return
    if heads is not None and heads != (own := cast(Any, vit.blocks[0]).attn.num_heads):
        raise _Unfit(f"heads {heads} instead of {own} ({config.name})")


def _check_finite(state: dict[str, Tensor]) -> None:
    for name, tensor in state.items():
        if not torch.isfinite(tensor.float()).all():
            raise _Unfit(f"{name} is missing, NaN or infinite in part")


@torch.no_grad()
def _load_npz(vit: VisionModel | Eva, file: Path) -> list[str]:
    """Load Google's original checkpoint; timm copies each array by its name."""
    if not isinstance(vit, VisionTransformer):
        raise _Unfit("an .npz file holds a ViT of Google")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found, positions = _npz_architecture(arrays)
        model = architecture_of(vit.state_dict())
        heads = cast(Any, vit.blocks[0]).attn.num_heads
        if difference := found.difference(Architecture(**{**vars(model), "heads": heads})):
            raise _Unfit(f"they are of another architecture: {difference}")
        notes = _absolute(positions, vit, file)
        for parameter in vit.parameters():
            parameter.fill_(torch.nan)  # what the file lacks stays NaN and is then refused
        vit.load_pretrained(str(file))
    except _Unfit:
        raise
    except Exception as error:  # a damaged archive, or arrays that are missing
        raise BackboneError(f"cannot read weights {file}: {type(error).__name__}: {error}") from None
    _check_finite(vit.state_dict())
    return notes


def _npz_architecture(arrays: Any) -> tuple[Architecture, int]:
    """Return the architecture of Google's arrays, and the number of positions.

    Raises:
        KeyError: an array is missing.
    """
    names: list[str] = arrays.files
    first = next((name for name in names if name.endswith("embedding/kernel")), None)
    if first is None:
        raise _Unfit(f"they have no array embedding/kernel, only {', '.join(names[:3])}: no ViT of Google")
    patch = arrays[first].shape  # [p, p, c, d]
    root = first.removesuffix("embedding/kernel")
    blocks = [int(found[1]) for name in names if (found := re.search(r"/encoderblock_(\d+)/", name))]
    stacked = f"{root}Transformer/encoderblock/LayerNorm_0/scale"
    query = next(n for n in names if "Transformer" in n and n.endswith("query/kernel"))  # [..., d, heads, d / heads]
    position = next(name for name in names if name.endswith("pos_embedding") and name.startswith(root))
    found = Architecture(
        patch_size=tuple(patch[:2]),
        channels=patch[2],
        width=patch[3],
        depth=(len(arrays[stacked]) if stacked in names else 1 + max(blocks, default=-1),),
        heads=arrays[query].shape[-2],
        class_tokens=int(f"{root}cls" in names),
    )
    return found, arrays[position].shape[-2]
