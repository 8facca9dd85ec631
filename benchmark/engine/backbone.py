"""The frozen ViT: which one, from which weights, checked."""

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg, swin_transformer
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from ...methods.anatomy import backbone_family, blocks_of
from .. import toy_vit
from ..spec import BackboneRef
from .evaluate import ProgressFn

TOY = "toy_vit"
"""The embedded backbone, which needs no download."""

BLOCKS: dict[type[nn.Module], type[nn.Module]] = {
    VisionTransformer: Block,
    swin_transformer.SwinTransformer: swin_transformer.SwinTransformerBlock,
}
"""The models that methods know, each with the block it is made of; subclasses may compute something else."""

FAMILIES = {"vit_*": "vision_transformer", "deit*": "deit", "swin_*": "swin_transformer"}
"""Name patterns of timm's backbones, and the modules that define them."""

LEGACY = {
    "vit_base_patch16_224_in21k": "vit_base_patch16_224.orig_in21k or vit_base_patch16_224.augreg_in21k",
    "vit_large_patch16_224_in21k": "vit_large_patch16_224.orig_in21k or vit_large_patch16_224.augreg_in21k",
    "vit_huge_patch14_224_in21k": "vit_huge_patch14_224.orig_in21k",
    "vit_small_patch16_224_in21k": "vit_small_patch16_224.augreg_in21k",
    "vit_tiny_patch16_224_in21k": "vit_tiny_patch16_224.augreg_in21k",
}
"""Names that meant different weights in different timm versions (protocol: original before 0.5, AugReg since)."""


HUB_FILE = "model.safetensors"
"""Of the weights, in timm's repositories on the hub."""


class BackboneError(Exception):
    """A backbone or its weights that cannot be used; the message says what, where, and what to do."""


@dataclass(frozen=True)
class Backbone:
    ref: BackboneRef
    vit: VisionTransformer
    """Pristine: frozen, fp32, on the CPU, without classifier.  A `SwinTransformer` in the Swin family."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    notes: tuple[str, ...]
    """What a user should know about how the weights were read."""


def load(
    name: str, weights: str | None = None, image_size: int | None = None, tell: ProgressFn = lambda *_: None
) -> Backbone:
    """The pristine backbone.

    name: timm's explicit model name with its tag.  weights: a .safetensors, .pth/.pt/.bin or Google .npz file,
    `random` or `random:SEED` for an untrained control, None for timm's hub.  image_size: side in pixels, other
    than the pretrained one by timm's interpolation of the position embedding.  tell: called before and after a download
    of weights that are not on this machine yet, with its name and 0 or 1 of 1 done.

    Raises:
        BackboneError: unknown or ambiguous name, not a plain ViT, unreadable or unfitting weights.
    """
    _check_name(name)
    known = facts(name)
    size = image_size or known.image_size
    seed = _random_seed(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        try:
            vit = known.build(size)
        except TypeError:  # families without an image size
            raise BackboneError(f"backbone {name!r} is no ViT or Swin Transformer; see `list backbones`") from None
    if BLOCKS.get(type(vit)) is None or not all(type(place.block) is BLOCKS[type(vit)] for place in blocks_of(vit)):
        what = type(vit).__name__
        raise BackboneError(f"backbone {name!r} is no plain ViT or Swin Transformer ({what}); see `list backbones`")
    vit = cast(VisionTransformer, vit)
    if seed is not None:
        sha256, notes = _state_sha256(vit), (f"{name}: random weights (seed {seed}), a control",)
    else:
        sha256, notes = _load_file(vit, Path(weights) if weights else known.default_weights(tell), name)
    vit.requires_grad_(False)
    return Backbone(BackboneRef(name=name, sha256=sha256), vit, known.mean, known.std, size, notes)


@dataclass(frozen=True)
class Facts:
    """What is known of a backbone before its weights are read."""

    build: Callable[[int], nn.Module]
    default_weights: Callable[[ProgressFn], Path]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int


def facts(name: str) -> Facts:
    """Of one of `names`, without building it."""
    if name == TOY:
        return Facts(
            lambda size: toy_vit.build(image_size=size),
            lambda _: toy_vit.WEIGHTS,
            toy_vit.MEAN,
            toy_vit.STD,
            toy_vit.IMAGE_SIZE,
        )
    cfg = get_pretrained_cfg(name)
    assert cfg is not None  # timm has pretrained weights of every name
    mean, std = (cast(tuple[float, float, float], tuple(values)) for values in (cfg.mean, cfg.std))
    return Facts(
        lambda size: timm.create_model(name, pretrained=False, num_classes=0, img_size=size, drop_path_rate=0.0),
        lambda tell: _from_hub(name, cfg.hf_hub_id, tell),
        mean,
        std,
        cfg.input_size[-1],
    )


def names() -> list[str]:
    """The embedded backbone, and with its tag every ViT and Swin Transformer that timm has pretrained weights of."""
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
            f"backbone {name!r} is ambiguous: it names different weights in different timm versions. "
            f"Say which you mean: {LEGACY[name]}"
        )
    architecture, _, tag = name.partition(".")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if timm.is_model(architecture) and not tag:
        raise BackboneError(f"backbone {name!r} leaves open which weights; say one of: {', '.join(tagged)}")
    if name not in tagged:
        close = difflib.get_close_matches(name, tagged or names(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise BackboneError(f"no backbone {name!r} in timm {timm.__version__}{hint} See `list backbones`")


def _random_seed(weights: str | None) -> int | None:
    """The seed in `random` or `random:SEED`; None when real weights are asked for."""
    kind, _, seed = (weights or "").partition(":")
    if kind != "random":
        return None
    if seed and not (seed.isascii() and seed.isdecimal()):
        raise BackboneError(f"--weights {weights}: write random or random:SEED with a whole number")
    return int(seed or 0)


def _from_hub(name: str, repository: str | None, tell: ProgressFn) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    by_hand = f"Download the weights of {name} by other means and give the file as --weights FILE"
    if not repository:
        raise BackboneError(f"timm has no hub address for {name}. {by_hand}")
    if repository.endswith("/"):
        repository += name
    download, is_new = f"downloading weights of {name}", try_to_load_from_cache(repository, HUB_FILE) is None
    if is_new:
        tell(download, 0, 1)
    try:
        file = Path(hf_hub_download(repository, HUB_FILE))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise BackboneError(f"cannot get {name} from the hub ({repository}): {reason}. {by_hand}") from None
    if is_new:
        tell(download, 1, 1)
    return file


def _load_file(vit: VisionTransformer, file: Path, name: str) -> tuple[str, tuple[str, ...]]:
    if not file.is_file():
        raise BackboneError(f"no weights at {file}; --weights takes a .safetensors, .pth or .npz file")
    sha256 = _file_sha256(file)
    try:
        if file.suffix == ".npz" and backbone_family(vit) == "vit":
            vit.load_pretrained(str(file))
            return sha256, ()
        state = _read_state(file)
    except BackboneError:
        raise
    except Exception as error:  # the readers of three formats each raise their own
        raise BackboneError(f"cannot read weights {file}: {type(error).__name__}: {error}") from None
    fit = checkpoint_filter_fn if backbone_family(vit) == "vit" else swin_transformer.checkpoint_filter_fn
    state = fit(state, vit)  # with the classifier: timm before 1.0.31 tells two layouts of Swin apart by its name
    classifier = {key for key in state if key.split(".")[0] in ("head", "head_dist", "pre_logits")}
    state = {key: value for key, value in state.items() if key not in classifier}
    _check_fit(vit, state, file, name)
    vit.load_state_dict({key: value.float() for key, value in state.items()})
    notes = f"{file.name}: its classifier was left out ({', '.join(sorted(classifier))})"
    return sha256, (notes,) if classifier else ()


def _read_state(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.suffix not in (".pth", ".pt", ".bin"):
        raise BackboneError(f"{file}: weights must be .safetensors, .pth, .pt, .bin or .npz")
    state = torch.load(file, map_location="cpu", weights_only=True)
    for wrapper in ("state_dict", "model", "model_state_dict"):
        state = state.get(wrapper, state)
    return {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}


def _check_fit(vit: VisionTransformer, state: dict[str, Tensor], file: Path, name: str) -> None:
    own = vit.state_dict()
    problems = [f"lacks {key}" for key in own if key not in state]
    problems += [f"has {key}, which the model has not" for key in state if key not in own]
    problems += [
        f"{key} is {list(state[key].shape)}, the model's {list(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise BackboneError(f"weights {file} do not fit {name}: {'; '.join(problems[:4])}{more}")


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _state_sha256(vit: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(vit.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
