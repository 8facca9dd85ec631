"""A trained cell kept beside its record: what the method added or changed, and the head, as one safetensors file.

Its metadata hold the key and the spec.  With the backbone that the spec names it is the whole model; `restore` refuses
anything that does not fit together.  Nothing is ever unpickled.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..methods import parse
from .adapter import Injected, inject, wants_examples
from .backbone import Backbone
from .engine import Trained, stream
from .spec import RunSpec, canonical_json
from .store import Damaged, StoreError

_HEAD, _ADAPTER = "head.", "adapter."


@dataclass(frozen=True)
class Kept:
    """What the file of a kept cell says."""

    spec: RunSpec
    adapter: dict[str, Tensor]
    head: nn.Linear


def pack(spec: RunSpec, trained: Trained) -> bytes:
    """The file of a trained cell."""
    tensors = {_ADAPTER + name: tensor for name, tensor in trained.injected.adapter().items()}
    for name, tensor in trained.head.state_dict().items():
        tensors[_HEAD + name] = tensor.detach().to("cpu", copy=True)
    return save(tensors, {"key": spec.key(), "spec": canonical_json(spec.to_json())})


def read(path: Path) -> Kept:
    """The file of a kept cell, its key recomputed.

    Raises:
        StoreError: it is not there.
        Damaged: it is not such a file, or its parts contradict each other.
    """
    if not path.is_file():
        raise StoreError(f"{path} is not there; train the cell with `vtab-peft run --keep-adapters`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        spec = RunSpec.from_json(json.loads(metadata["spec"]))
        if not spec.key() == metadata["key"]:
            raise ValueError("its key does not match its spec")
        weight, bias = tensors.pop(_HEAD + "weight"), tensors.pop(_HEAD + "bias")
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise ValueError("its head is not a linear map")
        odd = [name for name in tensors if not name.startswith(_ADAPTER)]
        if odd:
            raise ValueError(f"tensor {odd[0]!r} belongs neither to the adapter nor to the head")
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{path} is damaged: {error}; train the cell again with --keep-adapters") from None
    except KeyError as error:
        raise Damaged(f"{path} is damaged: it has no {error}; train the cell again with --keep-adapters") from None
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    return Kept(spec, {name.removeprefix(_ADAPTER): tensor for name, tensor in tensors.items()}, head)


def restore(kept: Kept, backbone: Backbone, examples: tuple[Tensor, Tensor] | None = None) -> Injected:
    """The backbone with the kept adapter in it, in evaluation mode, fp32.

    examples: as for `inject`, the training images and labels, for a method that looks at them first.

    Raises:
        ValueError: another backbone, another version of the method, missing examples, or names or shapes that differ.
    """
    spec, method = kept.spec, parse(kept.spec.method.spec)
    if backbone.ref != spec.backbone:
        raise ValueError(f"the cell was trained on {spec.backbone}, not on {backbone.ref}; give its weights")
    if method.version != spec.method.version:
        raise ValueError(f"{spec.method.name} is now version {method.version}, the cell's is {spec.method.version}")
    if wants_examples(method) and examples is None:
        raise ValueError(f"{spec.method.name} looks at training images first; it cannot be restored without them")
    if kept.head.in_features != backbone.vit.num_features:
        raise ValueError(
            f"the head takes {kept.head.in_features} features, the backbone has {backbone.vit.num_features}"
        )
    seed = stream(spec.seed, "initial values")
    injected = inject(backbone.vit, method, spec.recipe, seed, examples if wants_examples(method) else None)
    try:
        with torch.no_grad():
            injected.load_adapter(kept.adapter)
    except RuntimeError as error:  # torch's word for a shape that differs
        raise ValueError(f"the adapter does not fit {spec.backbone.name}: {error}") from None
    injected.vit.eval()
    return injected
