"""A kept cell opened again: its file, its record, its backbone, and the model that was trained."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...methods import Method, parse
from ...methods.plugin import load_plugin
from ..engine.backbone import TOY, Backbone, BackboneError, load
from ..engine.fast_path import make_fast
from ..engine.injection import Injected
from ..engine.transforms import preprocess
from ..spec import RunSpec
from . import adapter_checkpoint as kept
from .adapter_checkpoint import AdapterCheckpoint
from .lookup import find_adapter, record_of

TOY_AS_TIMM = {"patch_size": 16, "embed_dim": 128, "depth": 4, "num_heads": 4}
"""`toy_vit` is timm's `vit_tiny_patch16_224` with these arguments; a test compares the two."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained cell."""

    file: Path
    kept: AdapterCheckpoint
    record: dict[str, Any] | None
    """As stored, if it lies beside the file or was packed into it."""
    backbone: Backbone
    injected: Injected
    """In evaluation mode, fp32."""

    @property
    def spec(self) -> RunSpec:
        return self.kept.spec

    @property
    def method(self) -> Method:
        return parse(self.spec.method.spec)

    @property
    def class_names(self) -> list[str]:
        """Empty where the task has none."""
        return self.kept.facts.get("classes", [])

    def merged(self, dtype: torch.dtype = torch.float32) -> VisionTransformer:
        """A plain backbone with what was learned folded in.

        Raises:
            ValueError: the method cannot be expressed as weights of the plain model.
        """
        vit = copy.deepcopy(self.injected.vit).to(dtype)
        try:
            self.method.merge(vit)
        except TypeError as error:
            raise ValueError(f"{error}; an adapter of it can be had with --as adapter") from None
        return vit.float() if dtype == torch.float32 else vit

    @cached_property
    def _as_trained(self) -> nn.Module:
        vit = copy.deepcopy(self.injected.vit)
        make_fast(vit, self.spec.recipe.precision, "cpu")
        return vit

    @torch.no_grad()
    def logits(self, images: np.ndarray) -> Tensor:
        """What the cell computed in its evaluation, in the precision it was trained in.

        images: uint8 [b, 3, h, w], as `Preprocessing` makes them -> fp32 [b, k]
        """
        bf16 = self.spec.recipe.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            features = self._as_trained(self.input(torch.from_numpy(images))).float()
        return self.kept.head(features)

    def input(self, images: Tensor) -> Tensor:
        """uint8 [b, 3, h, w] -> normalised [b, 3, size, size]"""
        return preprocess(images, self.backbone.image_size, self.spec)


def load_trained(text: str, results: Path, weights: str | None = None, plugins: Sequence[Path] = ()) -> TrainedModel:
    """The cell that KEY_OR_PATH means.

    weights: of its backbone, as for `run`; checked against the hash that the cell was trained on.

    Raises:
        StoreError: no such cell, or a damaged file.
        ValueError: its backbone or method cannot be had, or are not the same.
    """
    for plugin in plugins:
        load_plugin(plugin)
    file = find_adapter(text, results)
    found = kept.read(file)
    record = record_of(file) or found.facts.get("record")
    try:
        backbone = load(found.spec.backbone.name, weights, found.spec.recipe.image_size)
    except BackboneError as error:
        raise ValueError(str(error)) from None
    return TrainedModel(file, found, record, backbone, kept.restore(found, backbone))


def timm_arguments(backbone: Backbone, classes: int) -> tuple[str, dict[str, Any]]:
    """Name and arguments with which `timm.create_model` builds the plain model with a head, weights aside."""
    name, more = backbone.ref.name, {}
    if name == TOY:
        name, more = "vit_tiny_patch16_224", TOY_AS_TIMM
    return name.partition(".")[0], {"num_classes": classes, "img_size": backbone.image_size, **more}


def with_head(backbone: Backbone, vit: nn.Module, head: nn.Linear) -> nn.Module:
    """The plain timm model, its weights taken from a backbone without head and a head.

    Raises:
        ValueError: `vit` has other tensors than the plain model.
    """
    name, arguments = timm_arguments(backbone, head.out_features)
    plain = timm.create_model(name, pretrained=False, **arguments)
    prefix = head_name(plain)
    state = {**vit.state_dict(), **{f"{prefix}.{part}": tensor for part, tensor in head.state_dict().items()}}
    if odd := sorted(set(state) ^ set(plain.state_dict())):
        raise ValueError(f"the merged model is no plain {name}: they differ in {', '.join(odd[:3])}")
    plain.load_state_dict(state)
    return plain.eval()


def head_name(plain: nn.Module) -> str:
    """Of the classifier's linear map: `head`, in Swin `head.fc`."""
    classifier = cast(Any, plain).get_classifier()
    return next(name for name, module in plain.named_modules() if module is classifier)
