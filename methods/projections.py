"""Which tensors of a method are projections: maps down from the features to few dimensions, and up again.

A module of a method has them if it says so by a method `projections()`, or if its children `down` and `up` are linear
maps.  That covers LoRA and its variants, AOFT and all bottleneck adapters; what is made in another way (Kronecker
products, tensors shared by all layers, rotations) has none.
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
    """The two of one module."""

    name: str
    """Of the module in the model."""
    down: Tensor
    """[r, in]: the r vectors that the features are multiplied with."""
    up: Tensor
    """[r, out]: the r vectors that the output is a combination of."""
    gain: float | None
    """The most by which the module can lengthen a difference of inputs: the spectral norm of a linear update; with an
    activation in between, the product of both spectral norms, the scale and the activation's steepest slope, a bound
    of it.  None where more lies between the two."""


SLOPES: dict[type[nn.Module], float] = {
    **dict.fromkeys((nn.Linear, nn.Identity, nn.Dropout, DropPath, nn.ReLU), 1.0),
    QuantisedLinear: 1.0,
    nn.GELU: 1.13,
    QuickGELU: 1.1,
}
"""What may lie beside two projections, and how steep it gets: GELU up to 1.129, x sigmoid(ax) up to 1.0998."""


@torch.no_grad()
def projections(vit: nn.Module) -> Iterator[Projections]:
    """Those of every module that has them, in the order of the model."""
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
    """[out, in], as it is used."""
    return linear.quantised() if isinstance(linear, QuantisedLinear) else linear.weight


def _gain(module: nn.Module, down: Tensor, up: Tensor) -> float | None:
    if isinstance(module, Update):
        return float(torch.linalg.matrix_norm(module.delta(), 2))
    scale = getattr(module, "scale", 1.0)  # a number or one learned factor
    both = torch.linalg.matrix_norm(down, 2) * torch.linalg.matrix_norm(up, 2)
    slopes = [SLOPES.get(type(part), math.nan) for part in module.children()]
    bound = float(both * abs(scale)) * math.prod(slopes)
    return None if math.isnan(bound) else bound
