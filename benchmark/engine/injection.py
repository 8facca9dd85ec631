"""Inject a method into a copy of the backbone, and extract the adapter.

The adapter is every tensor that is new, trainable, or different from the checkpoint.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save
from timm.layers.drop import DropPath
from torch import Tensor, nn

from ...methods import Method
from ...methods.anatomy import VisionModel, blocks_of
from ...methods.base import check_backbone
from ..spec import Recipe


@dataclass(frozen=True)
class Injected:
    """A backbone with a method in it."""

    vit: VisionModel
    adapter_names: tuple[str, ...]
    """Names of the tensors that the method added or changed."""

    def adapter(self) -> dict[str, Tensor]:
        """Copy the adapter to the CPU; checkpoint, method and adapter determine the whole model."""
        state = self.vit.state_dict()
        return {name: state[name].detach().to("cpu", copy=True).contiguous() for name in self.adapter_names}

    def adapter_bytes(self) -> int:
        """Return the size of the adapter as a safetensors file."""
        return len(save(self.adapter())) if self.adapter_names else 0

    def load_adapter(self, adapter: Mapping[str, Tensor]) -> None:
        """Load the values of an adapter.

        Raises:
            ValueError: the tensor names are not exactly those of this method, or a tensor has numbers of another kind.
        """
        if set(adapter) != set(self.adapter_names):
            differing = sorted(set(adapter) ^ set(self.adapter_names))[:3]
            raise ValueError(
                f"the adapter belongs to another method or backbone: tensors {', '.join(differing)} differ"
            )
        own = self.vit.state_dict()
        for name, tensor in adapter.items():  # torch would round them, or drop imaginary parts
            given, needed = (
                (t.is_floating_point(), t.is_complex(), t.dtype == torch.bool) for t in (tensor, own[name])
            )
            if given != needed:
                raise ValueError(f"{name} of the adapter has numbers of {tensor.dtype} instead of {own[name].dtype}")
        self.vit.load_state_dict(dict(adapter), strict=False)

    def trainable_params(self) -> int:
        """Return the number of trainable parameters."""
        return sum(p.numel() for p in self.vit.parameters() if p.requires_grad)


def inject(
    pristine: VisionModel,
    method: Method,
    recipe: Recipe,
    seed: int,
    examples: tuple[Tensor, Tensor] | None = None,
) -> Injected:
    """Inject a method into a copy of the pristine backbone; only what the method trains is not frozen.

    seed: of torch's global CPU generator, which draws the initial values.  examples: normalised images
    [n, 3, height, width] and labels [n], for methods that prepare with them; the copy is moved to their device.

    Raises:
        ValueError: the method does not support this kind of backbone, or its arguments do not fit.
    """
    check_backbone(method, pristine)
    vit = copy.deepcopy(pristine)
    _add_dropout(vit, recipe)
    original = pristine.state_dict()
    before = vit.state_dict(keep_vars=True)  # keeps the tensors alive, so that no new tensor gets the id of an old one
    checkpoint = {id(tensor): original[name] for name, tensor in before.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method.inject(vit)
        if examples is not None:
            vit.to(examples[0].device)
            method.prepare(vit, *examples)
            vit.zero_grad()
    adapter_names: dict[int, str] = {}  # a shared tensor has one name
    for name, tensor in vit.state_dict(keep_vars=True).items():
        untouched = id(tensor) in checkpoint and not tensor.requires_grad
        if not (untouched and torch.equal(tensor.cpu(), checkpoint[id(tensor)])):
            adapter_names.setdefault(id(tensor), name)
    return Injected(vit, tuple(adapter_names.values()))


def wants_examples(method: Method) -> bool:
    """Return True if the method prepares with training images."""
    return type(method).prepare is not Method.prepare


def _add_dropout(vit: VisionModel, recipe: Recipe) -> None:
    """Add drop-path or branch dropout, with a rate that grows linearly with depth from 0, and MLP dropout."""
    rate = recipe.drop_path or recipe.branch_dropout
    layer = DropPath if recipe.drop_path else nn.Dropout
    blocks = [ref.block for ref in blocks_of(vit)]
    for i, block in enumerate(blocks):
        block_rate = rate * i / max(len(blocks) - 1, 1)
        if block_rate:
            for name in ("drop_path1", "drop_path2"):
                setattr(block, name, layer(block_rate))
        for name in ("drop1", "drop2") if recipe.mlp_dropout else ():
            setattr(block.mlp, name, nn.Dropout(recipe.mlp_dropout))
