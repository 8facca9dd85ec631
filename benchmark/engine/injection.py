"""A fresh injected copy of the backbone, and the adapter: every tensor that is new or differs from the checkpoint."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...methods import Method
from ...methods.anatomy import blocks_of
from ...methods.base import check_backbone
from ..spec import Recipe


@dataclass(frozen=True)
class Injected:
    """A backbone that carries a method, with the names of what the method added or changed."""

    vit: VisionTransformer
    adapter_names: tuple[str, ...]

    def adapter(self) -> dict[str, Tensor]:
        """The adapter as it is now, on the CPU; with the checkpoint and the method it is the whole model."""
        state = self.vit.state_dict()
        return {name: state[name].detach().to("cpu", copy=True) for name in self.adapter_names}

    def adapter_bytes(self) -> int:
        """Size of the adapter as a safetensors file."""
        return len(save(self.adapter())) if self.adapter_names else 0

    def load_adapter(self, adapter: Mapping[str, Tensor]) -> None:
        """Raises `ValueError` when the names are not exactly this method's."""
        if set(adapter) != set(self.adapter_names):
            odd = sorted(set(adapter) ^ set(self.adapter_names))[:3]
            raise ValueError(f"this adapter is of another method or backbone; they differ in {', '.join(odd)}")
        self.vit.load_state_dict(dict(adapter), strict=False)

    def trainable_params(self) -> int:
        return sum(p.numel() for p in self.vit.parameters() if p.requires_grad)


def inject(
    pristine: VisionTransformer,
    method: Method,
    recipe: Recipe,
    seed: int,
    examples: tuple[Tensor, Tensor] | None = None,
) -> Injected:
    """A copy of the pristine backbone with the method in it, frozen but for what the method trains.

    seed: of torch's global CPU generator, which initial values are drawn from.
    examples: normalised images [n, 3, height, width] and labels [n] for methods that look at them first; the copy
    then ends up on their device.

    Raises:
        ValueError: the method is not made for this kind of backbone, or its arguments do not fit it.
    """
    check_backbone(method, pristine)
    vit = copy.deepcopy(pristine)
    _regularise(vit, recipe)
    original = pristine.state_dict()
    seen = vit.state_dict(keep_vars=True)  # kept alive, so that no new tensor takes the id of an old one
    checkpoint = {id(tensor): original[name] for name, tensor in seen.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method.inject(vit)
        if examples is not None:
            vit.to(examples[0].device)
            method.prepare(vit, *examples)
            vit.zero_grad()
    adapter_names: dict[int, str] = {}  # one name for a tensor that several layers share
    for name, tensor in vit.state_dict(keep_vars=True).items():
        untouched = id(tensor) in checkpoint and not tensor.requires_grad
        if not (untouched and torch.equal(tensor.cpu(), checkpoint[id(tensor)])):
            adapter_names.setdefault(id(tensor), name)
    return Injected(vit, tuple(adapter_names.values()))


def wants_examples(method: Method) -> bool:
    return type(method).prepare is not Method.prepare


def _regularise(vit: VisionTransformer, recipe: Recipe) -> None:
    """Drop-path or branch dropout at a rate growing linearly with depth, from 0 to the recipe's; MLP dropout."""
    rate = recipe.drop_path or recipe.branch_dropout
    kind = DropPath if recipe.drop_path else nn.Dropout
    blocks = [place.block for place in blocks_of(vit)]
    for i, block in enumerate(blocks):
        here = rate * i / max(len(blocks) - 1, 1)
        if here:
            for end in ("drop_path1", "drop_path2"):
                setattr(block, end, kind(here))
        for end in ("drop1", "drop2") if recipe.mlp_dropout else ():
            setattr(block.mlp, end, nn.Dropout(recipe.mlp_dropout))
