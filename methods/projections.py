"""The projections of a method: maps from the features down to a few dimensions, and up again.

A module has projections if it defines `projections()` or if its children `down` and `up` are linear maps.  That covers
LoRA and its variants, AOFT and all bottleneck adapters.  Methods of another form (Kronecker products, tensors shared
by all layers, rotations) have none.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from timm.layers.activations import QuickGELU
from timm.layers.drop import DropPath
from torch import Tensor, nn

from .binary import QuantisedLinear
from .updates import Update


@dataclass(frozen=True)
class Projections:
    """The down- and up-projection of one module."""

    name: str
    """Name of the module in the model."""
    down: Tensor
    """[r, in]: the vectors whose inner products with the features are computed."""
    up: Tensor
    """[r, out]: the vectors whose linear combination is the output."""
    gain: float | None
    """Lipschitz constant of the module.

    It is the spectral norm of a linear update.  With an activation in between, it is an upper bound: the product of
    both spectral norms, the scale and the activation's maximal slope.  None if other modules lie in between.
    """


SLOPES: dict[type[nn.Module], float] = {
    **dict.fromkeys((nn.Linear, nn.Identity, nn.Dropout, DropPath, nn.ReLU), 1.0),
    QuantisedLinear: 1.0,
    nn.GELU: 1.13,
    QuickGELU: 1.1,
}
"""Maximal slope of the modules allowed next to two projections: GELU 1.129, x sigmoid(ax) 1.0998."""


@torch.no_grad()
def projections(vit: nn.Module) -> Iterator[Projections]:
    """Yield the projections of every module that has them, in model order."""
    for name, module in vit.named_modules():
        if hasattr(module, "projections"):
            down, up = module.projections()  # pyright: ignore[reportCallIssue]
        elif _is_pair(module):
            down, up = (_weight(cast(nn.Linear, getattr(module, side))) for side in ("down", "up"))
            up = up.T
        else:
            continue
        yield Projections(name, down.detach(), up.detach(), _gain(module, down, up))


def _is_pair(module: nn.Module) -> bool:
    return all(isinstance(getattr(module, side, None), nn.Linear) for side in ("down", "up"))


def _weight(linear: nn.Linear) -> Tensor:
    """Return the weight [out, in] as used in the forward pass."""
    return linear.quantised() if isinstance(linear, QuantisedLinear) else linear.weight


def _gain(module: nn.Module, down: Tensor, up: Tensor) -> float | None:
    if isinstance(module, Update):
        return float(torch.linalg.matrix_norm(module.delta(), 2))
    scale = getattr(module, "scale", 1.0)  # a number or one trained factor
    both = torch.linalg.matrix_norm(down, 2) * torch.linalg.matrix_norm(up, 2)
    slopes = [SLOPES.get(type(part), math.nan) for part in module.children()]
    bound = float(both * abs(scale)) * math.prod(slopes)
    return None if math.isnan(bound) else bound
