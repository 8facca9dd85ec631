"""Adapter checkpoints: the tensors that a method added or changed, and the head, as one safetensors file.

The metadata holds run ID and spec.  Together with the backbone that the spec names, the file is the whole model.
`restore` refuses backbones and methods that do not match.  Nothing is unpickled.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ...datasets.reading import InvalidFile, naming
from ...datasets.schema import Invalid
from ...methods import METHODS, Method, parse
from ...methods.base import method_name
from ...methods.composed import run_once
from ...methods.plugin import edited_plugins, plugin_sha256
from ..canonical import canonical_json
from ..engine.backbone import Backbone
from ..engine.errors import is_oom
from ..engine.injection import Injected, inject, wants_examples
from ..engine.random_streams import Stream, derive_seed
from ..engine.trainer import Trained
from ..spec import RunSpec
from ..storage.json_io import StoreError
from ..storage.layout import LARGEST_CLASSES
from .header import Header, parse_header, read_intact, tensors_sha256, with_metadata

_HEAD, _ADAPTER = "head.", "adapter."
ADVICE = "train the run with --save-adapters (of `vtab-peft run` or `tune`)"


@dataclass(frozen=True)
class AdapterCheckpoint:
    """The content of an adapter checkpoint."""

    spec: RunSpec
    adapter: dict[str, Tensor]
    head: nn.Linear
    classes: Sequence[str] = ()
    """Names of the classes; empty if the task has none."""
    record: dict[str, Any] | None = None
    """The run's record, in an exported file."""

    def to_bytes(self, record: dict[str, Any] | None = None) -> bytes:
        """Return the file, with the run's record."""
        tensors = {_ADAPTER + name: tensor for name, tensor in self.adapter.items()}
        tensors |= {_HEAD + name: tensor for name, tensor in self.head.state_dict().items()}
        return _to_bytes(self.spec, tensors, self.classes, record or self.record)


def pack(spec: RunSpec, trained: Trained, class_names: Sequence[str] = ()) -> bytes:
    """Return the checkpoint of a model that has just been trained."""
    tensors = {_ADAPTER + name: tensor for name, tensor in trained.injected.adapter().items()}
    for name, tensor in trained.head.state_dict().items():
        tensors[_HEAD + name] = tensor.detach().to("cpu", copy=True)
    return _to_bytes(spec, tensors, class_names, None)


def _to_bytes(
    spec: RunSpec, tensors: dict[str, Tensor], classes: Sequence[str], record: dict[str, Any] | None
) -> bytes:
    """Return the file; raise `Invalid` if a reader would refuse it."""
    file = save(tensors)
    facts: dict[str, Any] = {"tensors": tensors_sha256(io.BytesIO(file))}
    facts |= ({"classes": list(classes)} if classes else {}) | ({"record": record} if record else {})
    texts = {"key": spec.run_id(), "spec": canonical_json(spec.to_json()), "facts": canonical_json(facts)}
    parse_header(texts, Path(f"{spec.run_id()}.safetensors"))
    return with_metadata(file, texts)


def read(path: Path) -> AdapterCheckpoint:
    """Read and check an adapter checkpoint.

    Raises:
        StoreError: The file does not exist or cannot be read.
        InvalidFile: The file is not a checkpoint, is damaged, contradicts itself, or has numbers that are not finite.
    """
    if not path.exists():
        raise StoreError(f"{path} does not exist; {ADVICE}")
    try:
        header = read_intact(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    except SafetensorError as error:
        raise InvalidFile(path, f"is not a safetensors file ({error})") from None
    with naming(path):
        return _checked(header, tensors)


def _checked(header: Header, tensors: dict[str, Tensor]) -> AdapterCheckpoint:
    """Return the checkpoint of tensors that fit together and are finite; raise `Invalid` for others."""
    for name, tensor in tensors.items():
        if not name.startswith((_ADAPTER, _HEAD)):
            raise Invalid("belongs neither to the adapter nor to the head", name)
        if not bool(torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all()):
            raise Invalid("has numbers that are not finite", name)
    missing = torch.empty(0)
    weight, bias = tensors.pop(_HEAD + "weight", missing), tensors.pop(_HEAD + "bias", missing)
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or {weight.dtype, bias.dtype} != {torch.float32}:
        raise Invalid("is not a linear layer of fp32 numbers", _HEAD + "weight")
    classes = len(weight)
    if classes > LARGEST_CLASSES or len(header.classes) not in (0, classes):
        raise Invalid(f"has {len(header.classes):,} names for {classes:,} classes", "facts.classes")
    head = nn.Linear(weight.shape[1], classes)
    head.load_state_dict({"weight": weight, "bias": bias})
    adapter = {name.removeprefix(_ADAPTER): tensor for name, tensor in tensors.items()}
    return AdapterCheckpoint(header.spec, adapter, head, header.classes, header.record)


def restore(
    checkpoint: AdapterCheckpoint, backbone: Backbone, examples: Callable[[], tuple[Tensor, Tensor]] | None = None
) -> Injected:
    """Return the backbone with the stored adapter, in evaluation mode and fp32.

    Args:
        examples: Returns training images and labels as for `inject`; called only if the method needs them.

    Raises:
        ValueError: The backbone, the method's version, or names, shapes or kinds of tensors differ, examples are
            missing, an index is out of range, or the features are not finite.
    """
    spec, method = checkpoint.spec, _method(checkpoint.spec)
    if backbone.ref != spec.backbone:
        trained, here = (f"{ref.name} with the weights {ref.sha256[:12]}" for ref in (spec.backbone, backbone.ref))
        raise ValueError(
            f"the run was trained on {trained}, and this is {here}; give what it was trained on as --weights: a file, "
            "hf:OWNER/NAME or random[:SEED]"
        )
    needs_examples = wants_examples(method) and not method.restores_without_examples
    if needs_examples and examples is None:
        raise ValueError(
            f"{spec.method.spec} is initialised from the training images, which are not available here; "
            "it can be trained and compared, but not restored from its adapter alone"
        )
    stored = sum(tensor.numel() for tensor in checkpoint.adapter.values())
    if (expected := method.expected_params(backbone.vit)) > stored:  # before memory for them is allocated
        raise ValueError(f"{spec.method.spec} has {expected:,} parameters, the adapter file has {stored:,}")
    seed = derive_seed(spec.seed, Stream.INITIAL_VALUES)
    injected = inject(backbone.vit, method, spec.recipe, seed, examples() if needs_examples and examples else None)
    try:
        with torch.no_grad():
            injected.load_adapter(checkpoint.adapter)
    except RuntimeError as error:  # torch raises it for shapes that differ
        raise ValueError(f"the adapter does not fit {spec.backbone.name}: {error}") from None
    if (takes := checkpoint.head.in_features) != (features := injected.vit.num_features):
        raise ValueError(f"the head takes {takes} features, the model has {features}")
    injected.vit.eval()
    try:
        with torch.no_grad():
            features = run_once(injected.vit)
    except (IndexError, RuntimeError) as error:
        if is_oom(error):
            raise
        raise ValueError(f"the model with the adapter does not run ({error}); its file is damaged") from None
    if not features.isfinite().all():  # such as by a negative variance
        raise ValueError("the model with the adapter computes numbers that are not finite; its file is damaged")
    return injected


def _method(spec: RunSpec) -> Method:
    """Return the method of a spec.  Raises `ValueError` if it is unknown or differs from the trained one."""
    asked = spec.method
    if asked.plugin and not {*asked.name.split("+")} <= {*METHODS}:
        raise ValueError(
            f"method {asked.name!r} came from a plug-in file ({asked.plugin[:12]}): give it as --plugin FILE"
        )
    method = parse(asked.spec)
    if method.version != asked.version:
        raise ValueError(f"{asked.name} is now version {method.version}, the run's is {asked.version}")
    arguments = json.loads(canonical_json(method.args()))
    if method_name(type(method)) != asked.name or any(arguments.get(n, ...) != v for n, v in asked.args.items()):
        raise ValueError(f"the file's method {asked.spec!r} has other arguments than {asked.args_json}")
    if (file := plugin_sha256(method)) != asked.plugin:
        trained, here = (
            f"plug-in {text[:12]}" if text else f"the built-in {asked.name}" for text in (asked.plugin, file)
        )
        edited = "".join(f"; {name} was edited after this process loaded it: restart it" for name in edited_plugins())
        raise ValueError(f"the run was trained with {trained}, this is {here}; give its file as --plugin FILE{edited}")
    return method
