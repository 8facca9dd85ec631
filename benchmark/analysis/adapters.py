"""What a trained cell's tensors say: angles, norms and ranks, and the terms of a bound, as plain numbers.

Everything is computed in float64 from the kept file, so the same file gives the same numbers.
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
from ..engine.trainer import derive_seed
from .angles import Group, groups
from .bounds import Bound, rademacher
from .spectra import Size, size

SITES = {"q": "attn.qkv", "k": "attn.qkv", "v": "attn.qkv", "o": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
BATCH = 50
"""Images in a forward pass (ours)."""


@dataclass(frozen=True)
class CellAnalysis:
    """One cell."""

    label: str
    angles: list[Group]
    sizes: list[Size]
    bounds: list[Bound]
    """Of every module with projections; empty without images."""


def analyze_weights(cell: TrainedModel) -> list[Group]:
    """Rows and columns of the pretrained weights, site by site."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for site, weight in _sites(cell.backbone.vit.state_dict(), cell.backbone.vit):
        matrix = weight.double().numpy()
        found.setdefault((f"pretrained {site}", "rows"), []).append(matrix)
        found.setdefault((f"pretrained {site}", "columns"), []).append(matrix.T)
    return [group for (of, side), matrices in found.items() for group in groups(of, side, "", matrices)]


def analyze_cell(cell: TrainedModel, images: np.ndarray | None = None) -> CellAnalysis:
    """images: the cell's training images, uint8 [n, 3, h, w] as `Preprocessing` makes them, for the bound's terms."""
    start = inject(cell.backbone.vit, cell.method, cell.spec.recipe, derive_seed(cell.spec.seed, "initial values")).vit
    states = {"start": copy.deepcopy(start).double(), "trained": copy.deepcopy(cell.injected.vit).double()}
    angles, sizes, label = [], [], cell.spec.method.spec
    for when, vit in states.items():
        pairs = list(projections(vit))
        for side in ("down", "up"):
            matrices = [cast(Tensor, getattr(pair, side)).numpy() for pair in pairs]
            angles += groups(label, side, when, matrices)
            sizes += [size(label, side, when, matrix) for matrix in matrices]
        sizes += [size(label, f"update of {site}", when, *pair) for site, pair in _updates(cell, vit)]
    bounds = [] if images is None else _bounds(cell, list(projections(states["trained"])), images)
    return CellAnalysis(label, angles, sizes, bounds)


def _sites(state: dict[str, Tensor], vit: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Site and weight [out, in] of every block."""
    for place in blocks_of(vit):
        for site, path in SITES.items():
            weight = state[f"{place.path}.{path}.weight"]
            yield site, weight.chunk(3)["qkv".index(site)] if path == "attn.qkv" else weight


def _updates(cell: TrainedModel, vit: nn.Module) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Site, what was added to its weight, and the weight, for those that changed; none where nothing can be merged."""
    if not cell.method.mergeable():
        return
    merged, plain = copy.deepcopy(vit), cell.backbone.vit
    try:
        cell.method.merge(cast(VisionTransformer, merged))
    except TypeError:  # some tuners of peft cannot
        return
    sites = zip(_sites(plain.state_dict(), plain), _sites(merged.state_dict(), plain), strict=True)
    every = [(site, before.double().numpy(), after.double().numpy()) for (site, before), (_, after) in sites]
    changed = {site for site, before, after in every if not np.array_equal(before, after)}
    for site, before, after in every:
        if site in changed:
            yield site, (after - before, before)


@torch.no_grad()
def _bounds(cell: TrainedModel, pairs: Sequence[Projections], images: np.ndarray) -> list[Bound]:
    """For every module with projections whose gain is known and that is run as a module.

    An input is the mean of the tokens that the module reads of an image; an update reads what its linear map does.
    """
    gains = {pair.name: pair.gain for pair in pairs if pair.gain is not None}
    read: dict[str, list[Tensor]] = {name: [] for name in gains}

    def note(name: str):
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            read[name].append(inputs[0].flatten(1, -2).mean(dim=1).double())

        return hook

    readers = {name: cell.injected.vit.get_submodule(name.partition(".updates.")[0]) for name in read}
    hooks = [reader.register_forward_pre_hook(note(name)) for name, reader in readers.items()]
    for first in range(0, len(images), BATCH):
        cell.injected.vit(cell.input(torch.from_numpy(np.array(images[first : first + BATCH]))))
    for hook in hooks:
        hook.remove()
    return [rademacher(name, gains[name], torch.cat(x).numpy()) for name, x in read.items() if x]
