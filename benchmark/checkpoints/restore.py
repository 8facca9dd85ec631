"""Load a trained model: adapter checkpoint, record, backbone, and the model itself."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...datasets.cache import CachedTask
from ...methods import Method, parse
from ...methods.anatomy import VisionModel
from ...methods.plugin import load_plugin
from ..engine.backbone import TOY, Backbone, BackboneError, load
from ..engine.eva import AS_PLAIN, is_from_eva, timm_tensors
from ..engine.evaluate import compute_logits, map_batches
from ..engine.fast_path import make_fast
from ..engine.injection import Injected
from ..engine.live_model import LiveModel
from ..engine.numerics import Numerics
from ..engine.trainer import TrainSet
from ..engine.transforms import preprocess
from ..spec import RunSpec
from . import adapter_checkpoint
from .adapter_checkpoint import AdapterCheckpoint
from .lookup import find_adapter, record_of

LARGEST = 1024
"""Largest number of threads or images in a batch that is taken from a record (our choice)."""
TOLERANCE = 1e-2
"""Largest accepted difference between the features of a merged model and the trained one, relative to the largest
feature (ours: 1000 times the rounding of fp32)."""
TOY_AS_TIMM = {"patch_size": 16, "embed_dim": 128, "depth": 4, "num_heads": 4}
"""Arguments of timm's `vit_tiny_patch16_224` that build `toy_vit`; a test compares the two."""


class NotMergeable(ValueError):
    """Weights of the plain model cannot express the method."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained model with its checkpoint and record."""

    file: Path
    checkpoint: AdapterCheckpoint
    record: dict[str, Any] | None
    """The record, if it lies beside the file or is part of it."""
    backbone: Backbone
    injected: Injected
    """The backbone with its adapter, in evaluation mode and fp32."""

    @property
    def spec(self) -> RunSpec:
        return self.checkpoint.spec

    @property
    def method(self) -> Method:
        return parse(self.spec.method.spec)

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes; empty if the task has none."""
        return self.checkpoint.classes

    def merged(self, dtype: torch.dtype = torch.float32) -> VisionModel:
        """Return a plain backbone with the adapter merged into its weights.

        Raises:
            NotMergeable: The method cannot be merged, or changes more than weights.
        """
        vit = copy.deepcopy(self.injected.vit).to(dtype)
        try:
            self.method.merge(vit)
        except TypeError as error:
            raise NotMergeable(str(error)) from None
        vit = vit.float() if dtype == torch.float32 else vit
        plain, weights = copy.deepcopy(self.backbone.vit).to(dtype).eval(), vit.state_dict()
        if set(weights) == set(plain.state_dict()):
            plain.load_state_dict(weights)
            difference = _difference(plain, self.injected.vit)
            if not difference <= TOLERANCE:
                raise NotMergeable(
                    f"the features of the plain model with the merged weights of {self.method.spec()} differ by "
                    f"{difference:.1e} of the largest: its `merge` is wrong, or it changes more than weights"
                )
        return vit

    @property
    def numerics(self) -> Numerics:
        """Threads and evaluation batch of the run, as its record states them, with the eager engine."""
        origin = (self.record or {}).get("provenance", {}).get("numerics", {})
        recorded = {name: origin[name] for name in ("threads", "eval_batch") if type(origin.get(name)) is int}
        return Numerics(**{name: value for name, value in recorded.items() if 0 < value <= LARGEST})

    @cached_property
    def live(self) -> LiveModel:
        """The model on the CPU, as the evaluation of the run had it."""
        return self.live_on(torch.device("cpu"), self.injected.vit)

    def live_on(self, device: torch.device, vit: VisionModel) -> LiveModel:
        """Return a copy of a model on a device, preprocessed and evaluated like the run."""
        live = LiveModel(device, self.numerics)
        fresh = replace(self.injected, vit=copy.deepcopy(vit))
        make_fast(fresh.vit, self.spec.recipe.precision, device.type)
        live.load(fresh, self.spec, self.backbone.image_size)
        live.vit.eval()
        return live

    def logits(self, images: np.ndarray) -> Tensor:
        """Return fp32 logits [n, k] of decoded images, uint8 [n, 3, h, w], as in the evaluation of the run."""
        live, head = self.live, self.checkpoint.head
        return torch.cat(list(map_batches(lambda batch: compute_logits(live, head, images[batch]), len(images), live)))

    def input(self, images: Tensor) -> Tensor:
        """Convert uint8 images [b, 3, h, w] to normalised input [b, 3, size, size]."""
        return preprocess(images, self.backbone.image_size, self.spec)


def load_trained(
    text: str,
    results: Path,
    weights: str | None = None,
    plugins: Sequence[Path] = (),
    backbone_name: str | None = None,
    data: CachedTask | None = None,
) -> TrainedModel:
    """Load the trained model of a run ID or path.

    Args:
        text: As for `find_adapter`.
        weights: Weights of the backbone, as for `run`; checked against the hash in the spec.
        backbone_name: Name of the backbone, which allows downloading its weights.  A name that only a file states never
            starts a download, because the file may come from anybody.
        data: The run's task, for methods that are initialised from training images.

    Raises:
        StoreError: There is no such run.
        InvalidFile: The file is damaged.
        ValueError: Backbone or method are not available, or differ from those of the run.
    """
    for plugin in plugins:
        load_plugin(plugin)
    file = find_adapter(text, results)
    found = adapter_checkpoint.read(file)
    record = record_of(file) or found.record
    try:
        ref = found.spec.backbone
        if backbone_name not in (None, ref.name):
            raise ValueError(f"{file} was trained on {ref.name!r}, not on {backbone_name!r}")
        backbone = load(ref.name, weights, found.spec.recipe.image_size, download=backbone_name is not None)
    except BackboneError as error:
        raise ValueError(str(error)) from None

    def examples() -> tuple[Tensor, Tensor]:
        assert data is not None
        return TrainSet(data, found.spec, backbone.image_size, torch.device("cpu")).examples()

    injected = adapter_checkpoint.restore(found, backbone, examples if data else None)
    return TrainedModel(file, found, record, backbone, injected)


@torch.no_grad()
def _difference(one: VisionModel, other: VisionModel) -> float:
    """Compare the features of one image of noise, relative to the largest."""
    size, generator = cast(Any, other.patch_embed).img_size, torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *size, generator=generator)
    found, expected = (vit(image.to(next(vit.parameters()))).float() for vit in (one, other))
    return float((found - expected).abs().max() / expected.abs().max())


def timm_arguments(backbone: Backbone, classes: int) -> tuple[str, dict[str, Any]]:
    """Return the name and arguments for `timm.create_model` that build the plain model with a head."""
    name, more = backbone.ref.name, {}
    if name == TOY:
        name, more = "vit_tiny_patch16_224", TOY_AS_TIMM
    elif is_from_eva(backbone.vit):
        more = AS_PLAIN
    return name.partition(".")[0], {"num_classes": classes, "img_size": backbone.image_size, **more}


def with_head(backbone: Backbone, vit: nn.Module, head: nn.Linear) -> nn.Module:
    """Return the plain timm model with the weights of a backbone and a head.

    Raises:
        NotMergeable: `vit` has other tensors than the plain model, such as a new bias.
    """
    name, arguments = timm_arguments(backbone, head.out_features)
    plain = timm.create_model(name, pretrained=False, **arguments)
    prefix = head_name(plain)
    state = timm_tensors(cast(VisionTransformer, vit), plain) if isinstance(plain, Eva) else vit.state_dict()
    state = {**state, **{f"{prefix}.{part}": tensor for part, tensor in head.state_dict().items()}}
    if odd := sorted(set(state) ^ set(plain.state_dict())):
        raise NotMergeable(f"the merged model differs from the plain {name} in {', '.join(odd[:3])}")
    plain.load_state_dict(state)
    return plain.eval()


def head_name(plain: nn.Module) -> str:
    """Return the name of the classifier's linear layer: `head`, or `head.fc` in Swin."""
    classifier = cast(Any, plain).get_classifier()
    return next(name for name, module in plain.named_modules() if module is classifier)
