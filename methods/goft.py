"""GOFT and qGOFT (Ma et al., ICML 2024, arXiv:2404.04316): a weight's inputs are rotated by a tree of Givens rotations.

    W' = W diag(s) G_1^T ... G_L^T,   G_l rotates the channel pairs (a, a + 2^l), a = 0, 2^(l+1), ...

d - 1 rotations connect all d input channels.  The strict form has an angle pi tanh(p) for each, qGOFT a free 2 x 2
matrix.  The first release is the paper's (ArthurLeoM/peft-givens 4dd5a2e, tuners/givens/layer.py).  The current one
(e6f03ec, `form="released"`) pairs a channel with its neighbour whatever the stride, so that it is not orthogonal.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from .base import Method, Paper, method
from .updates import LinearUpdateMethod, Transform

Form = Literal["paper", "released"]


def rotate_tree(weight: Tensor, rotations: Tensor) -> Tensor:
    """Multiply weight [out, n] by G_1^T ... G_L^T; rotations: [n - 1, 2, 2], level by level."""
    n = weight.shape[1]
    if n == 1:
        return weight
    pairs = n // 2
    rotated = torch.einsum("opj,pij->opi", weight[:, : 2 * pairs].unflatten(1, (pairs, 2)), rotations[:pairs])
    # The next level sees the first channel of each pair, and the last channel if their number is odd
    first = rotate_tree(torch.cat([rotated[..., 0], weight[:, 2 * pairs :]], dim=1), rotations[pairs:])
    both = torch.stack([first[:, :pairs], rotated[..., 1]], dim=-1).flatten(1)
    return torch.cat([both, first[:, pairs:]], dim=1)


def rotate_neighbours(weight: Tensor, rotations: Tensor) -> Tensor:
    """Multiply weight [out, n] as the current release does: the sine of each channel acts on its neighbour."""
    n, used, stride = weight.shape[1], 0, 1
    active = n
    while active > 1:
        pairs = active // 2
        a = 2 * stride * torch.arange(pairs, device=weight.device)
        level, both = rotations[used : used + pairs], torch.cat([a, a + stride])
        ones, zeros = weight.new_ones(n), weight.new_zeros(n)
        cos = ones.index_copy(0, both, torch.cat([level[:, 0, 0], level[:, 1, 1]]).to(weight.dtype))
        sin = zeros.index_copy(0, both, torch.cat([-level[:, 0, 1], level[:, 1, 0]]).to(weight.dtype))
        even, odd = (weight * cos).unflatten(1, (-1, 2)).unbind(-1)
        from_even, from_odd = (weight * sin).unflatten(1, (-1, 2)).unbind(-1)
        weight = torch.stack([even + from_odd, odd - from_even], dim=-1).flatten(1)
        used, stride, active = used + pairs, 2 * stride, active - pairs
    return weight


class GivensTree(Transform):
    """W -> W diag(scale) G_1^T ... G_L^T; initially the identity."""

    def __init__(self, inputs: int, form: Form, strict: bool, scaled: bool) -> None:
        super().__init__()
        self.form: Form = form
        start = torch.zeros(inputs - 1) if strict else torch.eye(2).expand(inputs - 1, 2, 2).clone()
        self.rotations = nn.Parameter(start)
        self.scale = nn.Parameter(torch.ones(inputs)) if scaled else None

    def matrices(self) -> Tensor:
        """Return the 2 x 2 matrix of each pair, [inputs - 1, 2, 2]."""
        if self.rotations.ndim == 3:
            return self.rotations
        angle = torch.pi * self.rotations.tanh()
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        scaled = weight if self.scale is None else weight * self.scale
        rotate = rotate_tree if self.form == "paper" else rotate_neighbours
        return rotate(scaled, self.matrices()), bias


@dataclass(frozen=True)
class _Givens(LinearUpdateMethod, Method):
    form: Form = "paper"
    sites: str = "qv"
    strict: ClassVar[bool] = True
    paper = Paper("ICML", 2024, "2404.04316", "ArthurLeoM/peft-givens")
    targets = "q, v"
    evidence = "authors' module"
    differs = (
        "This is the form of the paper and of the first release. The current one pairs each channel with its "
        "neighbour, as with `form='released'`."
    )
    search = {"sites": ("qv", "qkvo,fc1,fc2")}  # ours
    backbones = ("vit", "swin")

    def scaled(self) -> bool:
        return False

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Transform:
        if self.form == "released" and weight.shape[1] % 2:
            raise ValueError(f"form='released' needs an even number of input channels, not {weight.shape[1]}")
        return GivensTree(weight.shape[1], self.form, self.strict, self.scaled())


@method("goft")
class GOFT(_Givens):
    """Rotates and scales the input channels of each weight by a tree of Givens rotations."""

    scale: bool = True
    """Also train a factor for each input channel."""
    title = "GOFT"
    equation = r"W' = W\,\mathrm{diag}(s)\,G_1^\top \cdots G_L^\top,\ G_l \text{ rotations by } \pi\tanh(p)"

    def scaled(self) -> bool:
        return self.scale

    def update_params(self, inputs: int, outputs: int) -> int:
        return inputs - 1 + self.scale * inputs


@method("qgoft")
class QuasiGOFT(_Givens):
    """Replaces each Givens rotation by a free 2 x 2 matrix."""

    strict = False
    title = "qGOFT"
    equation = r"W' = W\,G_1^\top \cdots G_L^\top,\ G_l \text{ of free } 2 \times 2 \text{ matrices}"

    def update_params(self, inputs: int, outputs: int) -> int:
        return 4 * (inputs - 1)
