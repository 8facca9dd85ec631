"""Load the frozen backbone and check its weights."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models import PretrainedCfg, get_pretrained_cfg, swin_transformer
from timm.models.eva import Eva
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from ...datasets.reading import expanded
from ...methods.anatomy import VisionModel, blocks_of
from ...methods.plugin import plugin_of
from .. import toy_vit
from ..spec import BackboneRef
from . import eva, hub
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

PARTS = {
    **dict.fromkeys(("norm1", "norm2"), nn.LayerNorm),
    **dict.fromkeys(("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"), nn.Linear),
}
"""Parts of a block that methods modify, and their types."""

KINDS = "plain ViT, Eva or Swin Transformer"

MODULES = ("vision_transformer", "deit", "swin_transformer", "eva")
"""Modules of timm that define supported models."""

UNSUPPORTED = (
    *("aimv2_*", "vit_base_patch16_rpn_*", "vit_pwee_*", "vit_dpwee_*", "*_distilled_*"),
    *("eva02_enormous_*", "*_rope_mixed_*", "*_sapiens2"),
)
"""Their models that `refusal` refuses; a test compares both."""

LEGACY = {
    "vit_base_patch16_224_in21k": "vit_base_patch16_224.orig_in21k or vit_base_patch16_224.augreg_in21k",
    "vit_large_patch16_224_in21k": "vit_large_patch16_224.orig_in21k or vit_large_patch16_224.augreg_in21k",
    "vit_huge_patch14_224_in21k": "vit_huge_patch14_224.orig_in21k",
    "vit_small_patch16_224_in21k": "vit_small_patch16_224.augreg_in21k",
    "vit_tiny_patch16_224_in21k": "vit_tiny_patch16_224.augreg_in21k",
}
"""Names with different weights in different timm versions: the original ones before 0.5, AugReg since."""


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
    plugin: str | None = None
    """SHA-256 of the plug-in file that defines the model; None for timm's own."""


def load(
    name: str,
    weights: str | None = None,
    image_size: int | None = None,
    on_progress: ProgressFn = no_progress,
    download: bool = True,
) -> Backbone:
    """Load a pristine backbone.

    name: timm's model name, with its tag unless `weights` are given; or a model that a plug-in registered with timm.
    weights: a file of any format of `weight_files`; `hf:OWNER/NAME` on the Hugging Face hub; `random` or `random:SEED`
    for an untrained control; None for timm's hub.  image_size: side in pixels, for which timm interpolates the
    position embedding.  on_progress: called before and after a download.  download: False to use weights of timm's
    hub only if they are on this machine, and never to ask the hub.

    Raises:
        BackboneError: unknown or ambiguous name, unsupported model, unreadable or wrong weights.
    """
    _check_name(name, weights)
    known = facts(name)
    size = image_size or known.image_size
    seed = _random_seed(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        try:
            vit = known.build(size)
        except Exception as error:  # a model without an image size, a size that does not fit, an error of a plug-in
            module = _module(name)
            if module.startswith("timm.models.") and module.rpartition(".")[2] not in MODULES:
                raise _unsupported(name, f"it is defined in {module}") from None
            if plugin_of(module):
                _built(name)  # raises another error if the model is of another kind
            reason = f"it cannot be built for {size} pixels ({type(error).__name__}: {str(error)[:200]})"
            raise BackboneError(f"backbone {name!r}: {reason}; see `list backbones`") from None
    if reason := refusal(vit):
        raise _unsupported(name, reason)
    vit = cast(VisionModel | Eva, vit)
    patch = cast(tuple[int, int], vit.patch_embed.patch_size)[0]
    if image_size and image_size % patch:  # timm would ignore the pixels that are left over
        near = max(patch, image_size // patch * patch)
        raise BackboneError(
            f"backbone {name!r} takes patches of {patch} pixels: set image_size to {near} or {near + patch}"
        )
    if seed is not None:
        sha256, notes = _state_sha256(vit), (f"{name}: random weights (seed {seed}), a control",)
    else:
        sha256, notes = load_weights(vit, _file_of(weights, known, on_progress, download), name)
        if name != TOY and "." not in name:
            values = " ".join(f"{what} {'/'.join(f'{v:g}' for v in getattr(known, what))}" for what in ("mean", "std"))
            notes = (*notes, f"{name}: {values} are the default of a name without tag; --normalisation changes them")
    vit = eva.plain_vit(vit) if isinstance(vit, Eva) else vit
    plugin = None if name == TOY else plugin_of(timm.models.model_entrypoint(name.partition(".")[0]).__module__)
    if plugin is not None:
        sha256 = hashlib.sha256(f"{sha256} {plugin}".encode()).hexdigest()
    vit.requires_grad_(False)
    return Backbone(BackboneRef(name=name, sha256=sha256), vit, known.mean, known.std, size, notes, plugin)


def _file_of(weights: str | None, known: "Facts", on_progress: ProgressFn, download: bool) -> Path:
    if weights is None:
        return known.default_weights(on_progress, download)
    return hub.download_address(weights, on_progress) if weights.startswith(hub.HUB) else expanded(weights)


def _unsupported(name: str, reason: str) -> BackboneError:
    """Return the error for a model that methods cannot modify."""
    module, advice = _module(name), "see `list backbones`"
    if plugin_of(module):
        file = Path(str(sys.modules[module].__file__)).name
        advice = f"let {file} return timm's own VisionTransformer, Eva or SwinTransformer, as in docs/backbones.md"
    return BackboneError(f"backbone {name!r} is no {KINDS}: {reason}; {advice}")


def refusal(vit: nn.Module) -> str:
    """Return why methods cannot modify a model, or the plain form of an Eva; empty if they can."""
    if type(vit) is Eva:
        return eva.refusal(vit) or refusal(eva.with_plain_parts(vit))
    if type(vit) not in BLOCKS:
        return f"its class is {type(vit).__name__}"
    if type(vit.patch_embed) is not PatchEmbed:
        return f"its patches come from {type(vit.patch_embed).__name__}"
    for ref in blocks_of(vit):
        if type(ref.block) is not BLOCKS[type(vit)]:
            return f"its blocks are {type(ref.block).__name__}"
        modules = dict(ref.block.named_modules())
        for name, kind in PARTS.items():
            if not isinstance(modules.get(name), kind):
                return f"{name} of its blocks is no {kind.__name__}"
    return ""


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
    hub: str | None = None
    """Repository of the weights on the Hugging Face hub."""
    licence: str | None = None
    """Licence of the weights as timm states it; None if it does not."""


def facts(name: str) -> Facts:
    """Return the properties of one of `names`, without building the model."""
    if name == TOY:
        build = lambda size: toy_vit.build(image_size=size)  # noqa: E731
        return Facts(
            build, lambda *_: toy_vit.WEIGHTS, toy_vit.MEAN, toy_vit.STD, toy_vit.IMAGE_SIZE, None, "apache-2.0"
        )
    cfg = get_pretrained_cfg(name) or _built_cfg(name)
    mean, std = (cast(tuple[float, float, float], tuple(values)) for values in (cfg.mean, cfg.std))
    hub_id = f"{cfg.hf_hub_id}{name}" if (cfg.hf_hub_id or "").endswith("/") else cfg.hf_hub_id
    return Facts(
        lambda size: timm.create_model(name, pretrained=False, num_classes=0, img_size=size, drop_path_rate=0.0),
        lambda on_progress, download: _from_hub(name, hub_id, on_progress, download),
        mean,
        std,
        cfg.input_size[-1],
        hub_id,
        cfg.license,
    )


def _built_cfg(name: str) -> PretrainedCfg:
    """Return timm's default preprocessing at the image size of a model that has no configuration."""
    return PretrainedCfg(input_size=(3, *cast(Any, _built(name)).patch_embed.img_size))


def _built(name: str) -> nn.Module:
    """Return a model of timm or a plug-in without values, at its own image size.

    Raises:
        BackboneError: its code raises an error, or the model is not supported.
    """
    try:
        with torch.device("meta"):
            vit = timm.create_model(name, pretrained=False, num_classes=0)
    except Exception as error:  # of a plug-in
        raise BackboneError(f"backbone {name!r} cannot be built: {type(error).__name__}: {str(error)[:200]}") from None
    if reason := refusal(vit):
        raise _unsupported(name, reason)
    return vit


def _from_hub(name: str, repository: str | None, on_progress: ProgressFn, may_download: bool) -> Path:
    if not repository:
        raise BackboneError(f"timm has no hub address for {name}; pass a file as --weights FILE")
    return hub.download(repository, name, on_progress, may_download=may_download)


def names() -> list[str]:
    """List the embedded backbone, with tags the supported models with weights in timm, and models of plug-ins."""
    known = [name for name in timm.list_pretrained() if _may_be_supported(name.partition(".")[0])]
    plugged = [name for name in timm.list_models() if plugin_of(timm.models.model_entrypoint(name).__module__)]
    return [TOY, *known, *plugged]


def _module(name: str) -> str:
    return timm.models.model_entrypoint(name.partition(".")[0]).__module__


def _may_be_supported(architecture: str) -> bool:
    module = _module(architecture).removeprefix("timm.models.")
    return module in MODULES and not any(fnmatch(architecture, pattern) for pattern in UNSUPPORTED)


def _check_name(name: str, weights: str | None) -> None:
    if name == TOY:
        return
    if name in LEGACY:
        raise BackboneError(
            f"backbone {name!r} is ambiguous: it names different weights in different timm versions. Use {LEGACY[name]}"
        )
    architecture, _, tag = name.partition(".")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if not tag and timm.list_models(architecture):
        refused = not plugin_of(_module(name)) and not _may_be_supported(architecture)  # `load` says why
        if weights is None and not refused:
            advice = f"use one of: {', '.join(tagged)}; or " if tagged else ""
            raise BackboneError(f"backbone {name!r} does not say which weights; {advice}give --weights FILE")
    elif name not in tagged:
        close = nearest_backbones(name, tagged or names())
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        where = "See `list backbones`, or give the plug-in that registers it as --plugin FILE"
        raise BackboneError(f"no backbone {name!r} in timm {timm.__version__}{hint} {where}")


def _random_seed(weights: str | None) -> int | None:
    """Return the seed of `random` or `random:SEED`, and None for real weights."""
    source, _, seed = (weights or "").partition(":")
    if source != "random":
        return None
    if seed and not (seed.isascii() and seed.isdecimal() and int(seed) < 2**63):  # what torch takes
        raise BackboneError(f"--weights {weights}: the seed must be a whole number from 0 to 2**63 - 1")
    return int(seed or 0)


def _state_sha256(vit: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(vit.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
