"""Put a method into a timm model of your own, fold it back, and load trained adapters."""

import reprlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from ...methods import Method, parse
from ...methods.base import check_backbone
from ..checkpoints.restore import head_name, load_trained
from ..commands.export import timm_config
from ..engine.backbone import refusal
from ..engine.eva import plain_vit as plain_vit
from ..engine.injection import wants_examples
from .arguments import folder_of
from .wording import python_wording

APPLIED, TENSORS = "peft_method", "peft_tensors"
"""Attributes of a model that hold the applied method, and the names of its tensors in `state_dict`."""


def apply(
    vit: nn.Module, method: str | Method, examples: tuple[Tensor, Tensor] | None = None
) -> dict[str, nn.Parameter]:
    """Freeze a timm ViT or Swin Transformer, put a method into it in place, and return the trainable parameters.

    The classifier, if the model has one, is not part of the method: it stays as it is and remains trainable.
    A method whose features have another width (HST) gets a new one, with torch's initial values.
    Initial values come from torch's global generator, so call `torch.manual_seed` for reproducible ones.
    The method is then `vit.peft_method`.  A training loop must add `vit.peft_method.penalty(vit)` to the loss, unless
    it is None, and call `vit.peft_method.after_step(vit, step, steps)`, for the few methods that define these.
    Methods with a loss of their own (DA-VPT, DyT, PACE, SA2VP) need `vit.peft_method.loss` in place of the
    cross-entropy, and `vit.peft_method.copies` copies of each batch in one.

    Args:
        vit: An fp32 model on any device, as from `timm.create_model`.
        method: A spec such as `"lora(rank=4)"`, or an instance of a `Method`.  A spec of your own method is known once
            its file is imported.
        examples: Normalised training images [n, 3, height, width] and labels [n], on the model's device, for the
            methods that are initialised from them (da_vpt, da_vpt_plus, gps, sct, spt_adapter, spt_lora).

    Returns:
        The parameters by name, as of `trainable`.

    Raises:
        TypeError: The method is neither a spec nor an instance.
        ValueError: The method is unknown, its arguments or this model do not fit, a method is applied already, the
            model is not fp32 or has no values, or examples are missing or wrong.
    """
    with python_wording():
        method = parse(method) if isinstance(method, str) else method
    if not isinstance(method, Method):
        raise TypeError(f"method must be a spec such as 'lora(rank=4)' or an instance of Method, not {method!r}")
    if _unwrapped(vit) is not vit:
        raise ValueError(f"apply methods to the model inside {type(vit).__name__}, before it is compiled or wrapped")
    if (applied := getattr(vit, APPLIED, None)) is not None:
        raise ValueError(f"the model has {applied.spec()} already; merge it first, or use a new model")
    if isinstance(vit, Eva):
        raise ValueError("methods need the plain form of timm's Eva: model = vtab_peft.plain_vit(model)")
    if reason := refusal(vit):
        raise ValueError(f"methods need a plain ViT or Swin Transformer of timm: {reason} here")
    check_backbone(method, vit)
    parameters = list(vit.parameters())
    if dtypes := {str(p.dtype) for p in parameters} - {"torch.float32"}:
        raise ValueError(
            f"the model has {', '.join(sorted(dtypes))}; apply methods in float32, and train with autocast"
        )
    if any(p.is_meta for p in parameters):
        raise ValueError("the model has no values (device meta); load its weights first")
    if wants_examples(method):
        if examples is None:
            raise ValueError(f"{method.spec()} is initialised from training images; give examples=(images, labels)")
        _check_examples(vit, examples)
    vit.requires_grad_(False)
    device = parameters[0].device  # before the model, and with it this parameter, moves to the CPU
    try:
        with _without_classifier(vit):
            backbone = list(vit.cpu().state_dict(keep_vars=True).values())  # keeps them alive, so that ids stay theirs
            method.inject(vit)
            vit.to(device)
            if wants_examples(method) and examples is not None:
                method.prepare(vit, *examples)
                vit.zero_grad()
    except Exception as error:
        error.add_note("The model may be changed in part: make a new one before you apply a method again.")
        raise
    head, features = vit.get_submodule(head_name(vit)), cast(Any, vit).num_features
    if isinstance(head, nn.Linear) and head.in_features != features:
        head = nn.Linear(features, head.out_features, device=head.weight.device)
        vit.set_submodule(head_name(vit), head)
    head.requires_grad_(True)
    _mark(vit, method, _tensors_beside(backbone, vit))
    return trainable(vit)


def trainable(vit: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters of a model by name, those of its classifier included."""
    return {name: parameter for name, parameter in vit.named_parameters() if parameter.requires_grad}


def adapter(vit: nn.Module) -> dict[str, Tensor]:
    """Return copies of the tensors that the method added or trains and of the classifier, by name, on the CPU.

    In a model with the same weights and the same method, `load_state_dict(tensors, strict=False)` restores them.
    Of a model that was compiled or wrapped since `apply`, names are those inside the wrapper.
    Besides those of `trainable` a few methods need more: running statistics, and indices drawn at random.

    Raises:
        ValueError: No method is applied.
    """
    vit = _unwrapped(vit)
    if getattr(vit, APPLIED, None) is None:
        raise ValueError("no method is applied to this model; use apply(vit, method) first")
    names = getattr(vit, TENSORS)
    return {n: t.detach().to("cpu", copy=True).contiguous() for n, t in vit.state_dict().items() if n in names}


def merge(vit: nn.Module) -> None:
    """Fold the applied method into the weights, in place; the model is a plain timm model again.

    The outputs in evaluation mode stay the same up to rounding.  A wrapper, as of `torch.compile`, stays around it.

    Raises:
        ValueError: No method is applied.
        TypeError: Weights of the plain model cannot express the method.
    """
    vit = _unwrapped(vit)
    method: Method | None = getattr(vit, APPLIED, None)
    if method is None:
        raise ValueError("no method is applied to this model; use apply(vit, method) first")
    with _without_classifier(vit), torch.no_grad():
        method.merge(vit)
    delattr(vit, APPLIED)
    delattr(vit, TENSORS)


def load_adapter(
    run: str | Path,
    results: str | Path = "results",
    weights: str | Path | None = None,
    plugin: str | Path | Sequence[str | Path] | None = (),
    backbone: str | None = None,
) -> nn.Module:
    """Return a trained model: the timm backbone with the stored adapter and classifier, in evaluation mode and fp32.

    `timm.data.resolve_model_data_config(model)` returns the preprocessing of the training, and
    `model.pretrained_cfg["label_names"]` the class names if the task has them.  `merge(model)` makes it a plain model.

    Args:
        run: First characters of a run ID, a .safetensors file, or a folder made by `export --as adapter`.
        results: The folder in which run IDs are looked up.
        weights: The backbone's weights, as for `run`; they must be those of the training.
        plugin: Python file that defines the method, or several.
        backbone: Name of the run's backbone, which allows downloading its weights.

    Raises:
        StoreError: There is no such run, or it was stored without its adapter.
        DataError: Its file is damaged.
        ValueError: The backbone, its weights or the method are not available, or differ from those of the training.
    """
    if not isinstance(run, str | Path):
        raise ValueError(f"run must be the beginning of a run ID or a path, not {reprlib.repr(run)}")
    files = [plugin] if isinstance(plugin, str | Path) else plugin or ()
    with python_wording():
        given = None if weights is None else str(weights)
        trained = load_trained(str(run), folder_of(results, "results"), given, [Path(file) for file in files], backbone)
    model = trained.injected.vit
    classifier = head_name(model)
    model.set_submodule(classifier, trained.checkpoint.head)
    model.num_classes = trained.checkpoint.head.out_features
    config = timm_config(trained, classifier)
    model.pretrained_cfg = config["pretrained_cfg"] | {"label_names": config.get("label_names")}
    of_head = [f"{classifier}.{name}" for name in trained.checkpoint.head.state_dict()]
    _mark(model, trained.method, [*trained.injected.adapter_names, *of_head])
    return model.eval()


def _unwrapped(vit: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of `torch.compile` and of data parallelism."""
    while isinstance(inner := getattr(vit, "_orig_mod", None) or getattr(vit, "module", None), nn.Module):
        vit = inner
    return vit


def _mark(vit: nn.Module, method: Method, tensors: Iterable[str]) -> None:
    setattr(vit, APPLIED, method)
    setattr(vit, TENSORS, frozenset(tensors))


def _tensors_beside(backbone: Iterable[Tensor], vit: nn.Module) -> Iterable[str]:
    """Return the names of the tensors that are trainable or not of the backbone; a shared tensor has one name."""
    frozen = {id(tensor) for tensor in backbone}
    state = vit.state_dict(keep_vars=True)
    return {id(t): name for name, t in state.items() if t.requires_grad or id(t) not in frozen}.values()


def _check_examples(vit: nn.Module, examples: tuple[Tensor, Tensor]) -> None:
    """Raise `ValueError` if a method cannot choose parameters by these examples."""
    if not (isinstance(examples, tuple | list) and [isinstance(part, Tensor) for part in examples] == [True, True]):
        raise ValueError("examples must be two tensors: (images, labels)")
    images, labels = examples
    channels, size = cast(Any, vit.patch_embed).proj.in_channels, cast(Any, vit.patch_embed).img_size
    shape = (channels, *size)
    if images.dtype != torch.float32 or images.shape[1:] != shape or not len(images):
        found = f"{str(images.dtype).removeprefix('torch.')} of shape {list(images.shape)}"
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"the images of examples must be normalised float32 of shape [n, {wanted}], not {found}")
    device = next(vit.parameters()).device
    if elsewhere := next((part.device for part in examples if part.device != device), None):
        raise ValueError(f"the examples must be on the model's device, {device}, not on {elsewhere}")
    classes = getattr(vit.get_submodule(head_name(vit)), "out_features", None)
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        found = f"{str(labels.dtype).removeprefix('torch.')} of shape {list(labels.shape)}"
        raise ValueError(f"the labels of examples must be int64 of shape [{len(images)}], one per image, not {found}")
    if labels.min() < 0 or (classes and labels.max() >= classes):
        raise ValueError(
            f"the labels of examples must be from 0 to {classes - 1 if classes else 'the number of classes - 1'}, "
            f"not {int(labels.min())} to {int(labels.max())}"
        )


@contextmanager
def _without_classifier(vit: nn.Module) -> Iterator[None]:
    """Replace the classifier by an identity in the block, because methods get models without one."""
    name = head_name(vit)
    classifier = vit.get_submodule(name)
    vit.set_submodule(name, nn.Identity())
    try:
        yield
    finally:
        vit.set_submodule(name, classifier)
