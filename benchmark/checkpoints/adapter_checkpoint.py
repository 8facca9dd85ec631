"""A trained cell kept beside its record: what the method added or changed, and the head, as one safetensors file.

Its metadata hold the key and the spec.  With the backbone that the spec names it is the whole model; `restore` refuses
anything that does not fit together.  Nothing is ever unpickled.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ...methods import METHODS, Method, parse
from ...methods.plugin import plugin_sha256
from ..engine.backbone import Backbone
from ..engine.injection import Injected, inject, wants_examples
from ..engine.random_streams import Stream, derive_seed
from ..engine.trainer import Trained
from ..spec import RunSpec, canonical_json
from ..storage.json_io import CorruptRecord, StoreError

_HEAD, _ADAPTER = "head.", "adapter."


@dataclass(frozen=True)
class AdapterCheckpoint:
    """What the file of a kept cell says."""

    spec: RunSpec
    adapter: dict[str, Tensor]
    head: nn.Linear
    facts: dict[str, Any]
    """What is good to know of it: `classes` (names, where the task has them), and `record` in an exported file."""

    def packed(self, **facts: Any) -> bytes:
        """The file, with more facts."""
        tensors = {_ADAPTER + name: tensor for name, tensor in self.adapter.items()}
        tensors |= {_HEAD + name: tensor for name, tensor in self.head.state_dict().items()}
        return _packed(self.spec, tensors, {**self.facts, **facts})


def pack(spec: RunSpec, trained: Trained, class_names: Sequence[str] = ()) -> bytes:
    """The file of a trained cell."""
    tensors = {_ADAPTER + name: tensor for name, tensor in trained.injected.adapter().items()}
    for name, tensor in trained.head.state_dict().items():
        tensors[_HEAD + name] = tensor.detach().to("cpu", copy=True)
    return _packed(spec, tensors, {"classes": list(class_names)} if class_names else {})


def _packed(spec: RunSpec, tensors: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    texts = {"key": spec.run_id(), "spec": canonical_json(spec.to_json()), "facts": canonical_json(facts)}
    return in_order(save(tensors, texts))


def in_order(file: bytes) -> bytes:
    """A safetensors file with sorted metadata: the library writes them in any order, other bytes each time.

    The format: 8 bytes that give the length of a JSON header, the header, the tensors (safetensors' README).
    """
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + file[end:]


def read(path: Path) -> AdapterCheckpoint:
    """The file of a kept cell, its key recomputed.

    Raises:
        StoreError: it is not there.
        CorruptRecord: it is not such a file, or its parts contradict each other.
    """
    if not path.is_file():
        raise StoreError(f"{path} is not there; train the cell with --keep-adapters (of `vtab-peft run` or `tune`)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        spec, facts = RunSpec.from_json(json.loads(metadata["spec"])), json.loads(metadata.get("facts", "{}"))
        if not spec.run_id() == metadata["key"]:
            raise ValueError("its key does not match its spec")
        weight, bias = tensors.pop(_HEAD + "weight"), tensors.pop(_HEAD + "bias")
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise ValueError("its head is not a linear map")
        if not isinstance(facts, dict):
            raise ValueError("its facts are no JSON object")
        odd = [name for name in tensors if not name.startswith(_ADAPTER)]
        if odd:
            raise ValueError(f"tensor {odd[0]!r} belongs neither to the adapter nor to the head")
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptRecord(f"{path} is damaged: {error}; train the cell again with --keep-adapters") from None
    except KeyError as error:
        raise CorruptRecord(
            f"{path} is damaged: it has no {error}; train the cell again with --keep-adapters"
        ) from None
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    return AdapterCheckpoint(
        spec, {name.removeprefix(_ADAPTER): tensor for name, tensor in tensors.items()}, head, facts
    )


def restore(kept: AdapterCheckpoint, backbone: Backbone, examples: tuple[Tensor, Tensor] | None = None) -> Injected:
    """The backbone with the kept adapter in it, in evaluation mode, fp32.

    examples: as for `inject`, the training images and labels, for a method that looks at them first.

    Raises:
        ValueError: another backbone, another version of the method, missing examples, or names or shapes that differ.
    """
    spec, method = kept.spec, _method(kept.spec)
    if backbone.ref != spec.backbone:
        trained, here = (f"{ref.name} with the weights {ref.sha256[:12]}" for ref in (spec.backbone, backbone.ref))
        raise ValueError(f"the cell was trained on {trained}, and this is {here}; give its weights as --weights FILE")
    looks = wants_examples(method) and not method.restores_without_examples
    if looks and examples is None:
        raise ValueError(
            f"{spec.method.spec} builds itself from the training images, which are not at hand here; "
            "it can be trained and compared, but not restored from its adapter alone"
        )
    if kept.head.in_features != backbone.vit.num_features:
        raise ValueError(
            f"the head takes {kept.head.in_features} features, the backbone has {backbone.vit.num_features}"
        )
    seed = derive_seed(spec.seed, Stream.INITIAL_VALUES)
    injected = inject(backbone.vit, method, spec.recipe, seed, examples if looks else None)
    try:
        with torch.no_grad():
            injected.load_adapter(kept.adapter)
    except RuntimeError as error:  # torch's word for a shape that differs
        raise ValueError(f"the adapter does not fit {spec.backbone.name}: {error}") from None
    injected.vit.eval()
    return injected


def _method(spec: RunSpec) -> Method:
    """Raises `ValueError`: the method is not there, or is not the one that was trained."""
    asked = spec.method
    if asked.plugin and asked.name not in METHODS:
        raise ValueError(
            f"method {asked.name!r} came from a plug-in file ({asked.plugin[:12]}): give it as --plugin FILE"
        )
    method = parse(asked.spec)
    if method.version != asked.version:
        raise ValueError(f"{asked.name} is now version {method.version}, the cell's is {asked.version}")
    if (file := plugin_sha256(method)) != asked.plugin:
        trained, here = (
            f"plug-in {text[:12]}" if text else f"the suite's {asked.name}" for text in (asked.plugin, file)
        )
        raise ValueError(f"the cell was trained with {trained}, this is {here}; give its file as --plugin FILE")
    return method
