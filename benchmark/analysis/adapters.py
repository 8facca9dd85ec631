"""Measure the tensors of a saved adapter: angles, norms, ranks and the terms of a generalisation bound.

All computations use float64, so the same file gives the same numbers.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...methods.anatomy import blocks_of
from ...methods.projections import Projections, projections
from ..checkpoints.restore import TrainedModel
from ..engine.injection import inject
from ..engine.random_streams import Stream, derive_seed
from .angles import Group, groups
from .bounds import Bound, rademacher
from .spectra import Size, size

SITES = {"q": "attn.qkv", "k": "attn.qkv", "v": "attn.qkv", "o": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
BATCH = 50
"""Images in a forward pass."""


@dataclass(frozen=True)
class AdapterAnalysis:
    """Measurements of one saved adapter."""

    label: str
    angles: list[Group]
    sizes: list[Size]
    bounds: list[Bound]
    """Bounds of every module with projections; empty without images."""


def analyze_weights(trained: TrainedModel) -> list[Group]:
    """Measure the angles of rows and columns of the pretrained weights, site by site."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for site, weight in _sites(trained.backbone.vit.state_dict(), trained.backbone.vit):
        matrix = weight.double().numpy()
        found.setdefault((f"pretrained {site}", "rows"), []).append(matrix)
        found.setdefault((f"pretrained {site}", "columns"), []).append(matrix.T)
    return [group for (of, side), matrices in found.items() for group in groups(of, side, "", matrices)]


def analyze_adapter(trained: TrainedModel, images: np.ndarray | None = None) -> AdapterAnalysis:
    """Measure an adapter at initialisation and after training.

    images: preprocessed training images, uint8 [n, 3, h, w], for the terms of the bound.
    """
    seed = derive_seed(trained.spec.seed, Stream.INITIAL_VALUES)
    initial = inject(trained.backbone.vit, trained.method, trained.spec.recipe, seed).vit
    states = {"start": copy.deepcopy(initial).double(), "trained": copy.deepcopy(trained.injected.vit).double()}
    angles, sizes, label = [], [], trained.spec.method.spec
    for when, vit in states.items():
        pairs = list(projections(vit))
        for side in ("down", "up"):
            matrices = [cast(Tensor, getattr(pair, side)).numpy() for pair in pairs]
            angles += groups(label, side, when, matrices)
            sizes += [size(label, side, when, matrix) for matrix in matrices]
        sizes += [size(label, f"update of {site}", when, *pair) for site, pair in _updates(trained, vit)]
    bounds = [] if images is None else _bounds(trained, list(projections(states["trained"])), images)
    return AdapterAnalysis(label, angles, sizes, bounds)


def _sites(state: dict[str, Tensor], vit: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the site and weight [out, in] of all linear maps of every block."""
    for block in blocks_of(vit):
        for site, path in SITES.items():
            weight = state[f"{block.path}.{path}.weight"]
            yield site, weight.chunk(3)["qkv".index(site)] if path == "attn.qkv" else weight


def _updates(trained: TrainedModel, vit: nn.Module) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Yield (site, (update, pretrained weight)) of changed weights; nothing if the method cannot be merged."""
    if not trained.method.mergeable():
        return
    merged, plain = copy.deepcopy(vit), trained.backbone.vit
    try:
        trained.method.merge(cast(VisionTransformer, merged))
    except TypeError:  # some tuners of PEFT cannot be merged
        return
    sites = zip(_sites(plain.state_dict(), plain), _sites(merged.state_dict(), plain), strict=True)
    every = [(site, before.double().numpy(), after.double().numpy()) for (site, before), (_, after) in sites]
    changed = {site for site, before, after in every if not np.array_equal(before, after)}
    for site, before, after in every:
        if site in changed:
            yield site, (after - before, before)


@torch.no_grad()
def _bounds(trained: TrainedModel, pairs: Sequence[Projections], images: np.ndarray) -> list[Bound]:
    """Compute the bound of every called module with projections and a known gain.

    Its inputs are the means over the tokens of each image, in all windows of a Swin Transformer; an update reads the
    input of its linear map.
    """
    gains = {pair.name: pair.gain for pair in pairs if pair.gain is not None}
    read: dict[str, list[Tensor]] = {name: [] for name in gains}
    batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]

    def record_input(name: str):
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            read[name].append(inputs[0].reshape(len(batch), -1, inputs[0].shape[-1]).mean(dim=1).double())

        return hook

    readers = {name: trained.injected.vit.get_submodule(name.partition(".updates.")[0]) for name in read}
    hooks = [reader.register_forward_pre_hook(record_input(name)) for name, reader in readers.items()]
    for batch in batches:
        trained.injected.vit(trained.input(torch.from_numpy(np.array(batch))))
    for hook in hooks:
        hook.remove()
    return [rademacher(name, gains[name], torch.cat(x).numpy()) for name, x in read.items() if x]
