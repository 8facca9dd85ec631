"""Load the frozen backbone and check its weights."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import timm
import torch
from timm.models import get_pretrained_cfg, swin_transformer
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from ...methods.anatomy import VisionModel, blocks_of
from .. import toy_vit
from ..spec import BackboneRef
from .backbone_names import nearest_backbones
from .errors import BackboneError
from .evaluate import ProgressFn, no_progress
from .weights import load_weights

TOY = "toy_vit"
"""The embedded backbone, which needs no download."""

BLOCKS: dict[type[nn.Module], type[nn.Module]] = {
    VisionTransformer: Block,
    swin_transformer.SwinTransformer: swin_transformer.SwinTransformerBlock,
}
"""Supported models and their blocks.  Subclasses are excluded, because they may compute something else."""

FAMILIES = {"vit_*": "vision_transformer", "deit*": "deit", "swin_*": "swin_transformer"}
"""Name patterns of timm's backbones, and the modules that define them."""

LEGACY = {
    "vit_base_patch16_224_in21k": "vit_base_patch16_224.orig_in21k or vit_base_patch16_224.augreg_in21k",
    "vit_large_patch16_224_in21k": "vit_large_patch16_224.orig_in21k or vit_large_patch16_224.augreg_in21k",
    "vit_huge_patch14_224_in21k": "vit_huge_patch14_224.orig_in21k",
    "vit_small_patch16_224_in21k": "vit_small_patch16_224.augreg_in21k",
    "vit_tiny_patch16_224_in21k": "vit_tiny_patch16_224.augreg_in21k",
}
"""Names with different weights in different timm versions: the original ones before 0.5, AugReg since."""

HUB_FILE = "model.safetensors"
"""File of the weights in timm's repositories on the hub."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained backbone with the preprocessing it expects."""

    ref: BackboneRef
    vit: VisionModel
    """Pristine model: frozen, fp32, on the CPU, without classifier."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    notes: tuple[str, ...]
    """Remarks for the user on how the weights were read."""


def load(
    name: str,
    weights: str | None = None,
    image_size: int | None = None,
    on_progress: ProgressFn = no_progress,
    download: bool = True,
) -> Backbone:
    """Load a pristine backbone.

    name: timm's explicit model name with its tag.  weights: a .safetensors, .pth, .pt, .bin or Google .npz file;
    `random` or `random:SEED` for an untrained control; None for timm's hub.  image_size: side in pixels,
    for which timm interpolates the position embedding.  on_progress: called before and after a download.
    download: False to use weights of the hub only if they are on this machine, and never to ask the hub.

    Raises:
        BackboneError: unknown or ambiguous name, unsupported model, unreadable or wrong weights.
    """
    _check_name(name)
    known = facts(name)
    size = image_size or known.image_size
    seed = _random_seed(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        try:
            vit = known.build(size)
        except TypeError:  # models without an image size
            raise BackboneError(f"backbone {name!r} is no ViT or Swin Transformer; see `list backbones`") from None
    if not is_supported(vit):
        found = type(vit).__name__
        raise BackboneError(f"backbone {name!r} is no plain ViT or Swin Transformer ({found}); see `list backbones`")
    vit = cast(VisionModel, vit)
    if seed is not None:
        sha256, notes = _state_sha256(vit), (f"{name}: random weights (seed {seed}), a control",)
    else:
        file = Path(weights) if weights else known.default_weights(on_progress, download)
        sha256, notes = load_weights(vit, file, name)
    vit.requires_grad_(False)
    return Backbone(BackboneRef(name=name, sha256=sha256), vit, known.mean, known.std, size, notes)


def is_supported(vit: nn.Module) -> bool:
    """Return True for a plain ViT or Swin Transformer of timm."""
    return type(vit) in BLOCKS and all(type(ref.block) is BLOCKS[type(vit)] for ref in blocks_of(vit))


@dataclass(frozen=True)
class Facts:
    """Properties of a backbone that are known before its weights are read."""

    build: Callable[[int], nn.Module]
    """Builds the model for an image size."""
    default_weights: Callable[[ProgressFn, bool], Path]
    """Returns the file of the weights, after a download if necessary and allowed."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int


def facts(name: str) -> Facts:
    """Return the properties of one of `names`, without building the model."""
    if name == TOY:
        build = lambda size: toy_vit.build(image_size=size)  # noqa: E731
        return Facts(build, lambda *_: toy_vit.WEIGHTS, toy_vit.MEAN, toy_vit.STD, toy_vit.IMAGE_SIZE)
    cfg = get_pretrained_cfg(name)
    assert cfg is not None  # timm has pretrained weights of every name
    mean, std = (cast(tuple[float, float, float], tuple(values)) for values in (cfg.mean, cfg.std))
    return Facts(
        lambda size: timm.create_model(name, pretrained=False, num_classes=0, img_size=size, drop_path_rate=0.0),
        lambda on_progress, download: _from_hub(name, cfg.hf_hub_id, on_progress, download),
        mean,
        std,
        cfg.input_size[-1],
    )


def names() -> list[str]:
    """List the embedded backbone and, with tags, all ViTs and Swin Transformers with pretrained weights in timm."""
    known = [
        name
        for pattern, module in FAMILIES.items()
        for name in timm.list_pretrained(pattern)
        if timm.models.model_entrypoint(name.split(".")[0]).__module__ == f"timm.models.{module}"
        and "distilled" not in name  # a second token and head
    ]
    return [TOY, *known]


def _check_name(name: str) -> None:
    if name == TOY:
        return
    if name in LEGACY:
        raise BackboneError(
            f"backbone {name!r} is ambiguous: it names different weights in different timm versions. Use {LEGACY[name]}"
        )
    architecture, _, tag = name.partition(".")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if timm.is_model(architecture) and not tag:
        raise BackboneError(f"backbone {name!r} does not say which weights; use one of: {', '.join(tagged)}")
    if name not in tagged:
        close = nearest_backbones(name, tagged or names())
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise BackboneError(f"no backbone {name!r} in timm {timm.__version__}{hint} See `list backbones`")


def _random_seed(weights: str | None) -> int | None:
    """Return the seed of `random` or `random:SEED`, and None for real weights."""
    source, _, seed = (weights or "").partition(":")
    if source != "random":
        return None
    if seed and not (seed.isascii() and seed.isdecimal()):
        raise BackboneError(f"--weights {weights}: the seed must be a whole number, as in random:SEED")
    return int(seed or 0)


def _from_hub(name: str, repository: str | None, on_progress: ProgressFn, may_download: bool) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    advice = f"Download the weights of {name} in another way and pass the file as --weights FILE"
    if not repository:
        raise BackboneError(f"timm has no hub address for {name}. {advice}")
    if repository.endswith("/"):
        repository += name
    cached = try_to_load_from_cache(repository, HUB_FILE)
    if not may_download:
        if isinstance(cached, str):
            return Path(cached)
        raise BackboneError(
            f"the weights of {name} are not on this machine, and the name comes from a file; give --backbone {name} "
            f"to download them, or a file of them as --weights FILE"
        )
    download, is_new = f"downloading weights of {name}", cached is None
    if is_new:
        on_progress(download, 0, 1)
    try:
        file = Path(hf_hub_download(repository, HUB_FILE))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise BackboneError(f"cannot download {name} from the hub ({repository}): {reason}. {advice}") from None
    if is_new:
        on_progress(download, 1, 1)
    return file


def _state_sha256(vit: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(vit.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
