"""AOFT, approximately orthogonal fine-tuning (ICCV 2025, arXiv:2507.13260): the generator, and AOFT in place of LoRA.

One vector q = (q0, q') of length D generates r approximately orthogonal columns AO(q), the first r of

    Q(q) = [ q0         -q'^T      ]          c = 1 / (1 + q0)
           [ q'    I - c q' q'^T   ]

For |q| = 1 this is the rotation that takes e0 to q.  The norm is not enforced, hence "approximately".  Two such
matrices are the down- and up-projection of an update

    x -> AO(q_up) diag(scale) AO(q_down)^T x,

so the number of parameters does not grow with the rank.  The scaling vector belongs to the starred form, AOFT*.

The formula, both projections and the star are published.  The released code (CalliopeYang/AOFT 2ffd89c) differs: it
uses c = 1 / ((1 + q0)^2 + 1), passes no gradient through entry [0, 0], initialises q to 0 and drops the bias of the
adapted linear maps.  We infer from parameter counts that the LoRA rows of the paper's tables adapt q and v.
docs/aoft.md documents every choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Method, Paper, method
from .updates import LinearUpdateMethod, LowRankUpdate, Update

Form = Literal["paper", "released", "exact"]
ScaleInit = Literal["zeros", "ones", "normal", "uniform", "none"]
VectorInit = Literal["zeros", "normal", "identity"]

POLE_GUARD = 1e-3
"""Ours: lower bound of |1 + q0| at the pole of the paper's coefficient.  The initial q0 is 0 or 1."""


def approximately_orthogonal(q: Tensor, columns: int, form: Form = "paper") -> Tensor:
    """Return the first `columns` columns of Q(q), [d, columns], for q: [d].

    form: `paper` is the published matrix, `released` that of the authors' code, and `exact` the published one for
    q / |q|, whose columns are orthonormal.  Column 0 is (q0; q'), column j is e_j - q_j (1; c q').
    """
    if form == "exact":
        q = q / q.norm()
    q0, tail = q[:1], q[1:]
    if form == "released":
        coefficient = 1 / ((1 + q0) ** 2 + 1)
        first = torch.cat([q0.detach(), tail])
    else:
        pole = 1 + q0
        coefficient = 1 / torch.where(pole.abs() < POLE_GUARD, POLE_GUARD, pole)
        first = q
    shared = torch.cat([torch.ones_like(q0), coefficient * tail])
    axes = torch.eye(len(q), columns, dtype=q.dtype, device=q.device)[:, 1:]
    return torch.cat([first[:, None], axes - shared[:, None] * q[1:columns]], dim=1)


def initial_vector(width: int, start: VectorInit) -> Tensor:
    """Return the initial q: [width].

    start: `zeros` is the released code's choice, the others are ours.  `normal` has q0 = 0 and q' ~ N(0, 1/width),
    near the unit sphere, so that columns are nearly orthogonal.  `identity` is q = e0, where Q(q) = I.
    """
    q = torch.zeros(width)
    if start == "normal":
        q[1:].normal_(std=width**-0.5)
    elif start == "identity":
        q[0] = 1.0
    return q


SCALE_INITS: dict[str, Callable[[int], Tensor]] = {
    "zeros": torch.zeros,
    "ones": torch.ones,
    "normal": torch.randn,  # released LoRA file
    "uniform": torch.rand,  # released adapter file
}


class AOFTUpdate(LowRankUpdate):
    """x -> AO(q_up) diag(scale) AO(q_down)^T x.

    The D x r matrices are built once per step.  The alternative, products with the identity plus a rank-two term, is
    not always faster (perf/aoft_products.py).
    """

    def __init__(self, inputs: int, outputs: int, rank: int, form: Form, scale: ScaleInit, start: VectorInit) -> None:
        super().__init__()
        if rank > min(inputs, outputs):
            raise ValueError(f"rank {rank} exceeds the {min(inputs, outputs)} dimensions of a map here")
        self.rank = rank
        self.form: Form = form
        self.q_down, self.q_up = (nn.Parameter(initial_vector(width, start)) for width in (inputs, outputs))
        self.scale = None if scale == "none" else nn.Parameter(SCALE_INITS[scale](rank))

    def columns(self) -> tuple[Tensor, Tensor]:
        """Return AO(q_down) [inputs, rank] and AO(q_up) [outputs, rank]."""
        down = approximately_orthogonal(self.q_down, self.rank, self.form)
        up = approximately_orthogonal(self.q_up, self.rank, self.form)
        return down, up

    def down_and_up(self) -> tuple[Tensor, Tensor]:
        down, up = self.columns()
        return (down if self.scale is None else down * self.scale).T, up

    def projections(self) -> tuple[Tensor, Tensor]:
        """Return the transposed projections, [rank, inputs] and [rank, outputs], without the scale."""
        down, up = self.columns()
        return down.T, up.T


class AOFTUpdateWithoutBias(AOFTUpdate):
    """The same update, which also subtracts the `bias` [outputs] of the adapted map, as the released code does."""

    bias: Tensor

    def __init__(self, *arguments: Any, bias: Tensor) -> None:
        super().__init__(*arguments)
        self.register_buffer("bias", bias.detach().clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        down, up = self.down_and_up()
        return F.linear(F.linear(x, down), up, -self.bias)

    def bias_delta(self) -> Tensor:
        return -self.bias


@dataclass(frozen=True)
class AOFT(Method):
    """The hyper-parameters shared by all forms of AOFT."""

    form: Form = "paper"
    scale: ScaleInit = "zeros"
    """Initial scaling vector.  Zero is initially the pretrained model (ours); `none` is AOFT without star."""
    start: VectorInit = "normal"
    """Initial generating vectors; if `scale` is zero, the initial projections must already span a subspace."""
    paper = Paper("ICCV", 2025, "2507.13260", "CalliopeYang/AOFT")
    evidence = "paper only"

    def validate(self) -> None:
        super().validate()
        if self.form == "exact" and self.start == "zeros":
            raise ValueError("form='exact' divides by |q|, so q cannot be zero initially; use start='normal'")


@dataclass(frozen=True)
class AOFTUpdates(AOFT):
    """AOFT that generates pairs of projections."""

    rank: PositiveInt = 8

    def update(self, inputs: int, outputs: int, drop: Tensor | None = None) -> AOFTUpdate:
        """Create the update of one map; drop: a bias [outputs] to subtract."""
        arguments = inputs, outputs, self.rank, self.form, self.scale, self.start
        return AOFTUpdate(*arguments) if drop is None else AOFTUpdateWithoutBias(*arguments, bias=drop)

    def update_params(self, inputs: int, outputs: int) -> int:
        return inputs + outputs + (0 if self.scale == "none" else self.rank)


@method("aoft_lora")
class AOFTLoRA(AOFTUpdates, LinearUpdateMethod):
    """Replaces LoRA's factors by approximately orthogonal projections; initially the pretrained model."""

    sites: str = "qv"
    keep_bias: ClassVar[bool] = True
    """False drops the pretrained bias of every adapted linear map, as the released code does."""
    backbones = ("vit", "swin")
    title = "AOFT-LoRA"
    equation = r"W' = W + AO(q_{up})\,\mathrm{diag}(\lambda)\,AO(q_{down})^T"
    targets = "q, v"
    differs = (
        "The release also adapts fc1 and fc2, drops the biases of the adapted maps, and has another coefficient in AO. "
        "Vectors start at zero there, scales at random. `aoft_lora_released` is that code."
    )

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update:
        outputs, inputs = weight.shape
        return self.update(inputs, outputs, None if self.keep_bias else bias)


@method("aoft_lora_paper")
class AOFTLoRAPaper(AOFTLoRA):
    """Implements the paper's LoRA row: q and v, without scaling vector.

    Published: the formula.  From the released code: rank 8 and the initial value q = 0, which makes the initial update
    diag(0, 1, ..., 1) on the first 8 coordinates.  Inferred: the maps q and v, from the parameter count, and that
    their bias is kept.
    """

    scale: ScaleInit = "none"
    start: VectorInit = "zeros"
    title = "AOFT-LoRA (paper)"
    equation = r"W' = W + AO(q_{up})\,AO(q_{down})^T"
    differs = (
        "The release also adapts fc1 and fc2, drops the biases of the adapted maps, and has a scaling vector and "
        "another coefficient in AO. `aoft_lora_released` is that code."
    )
    starts_as_identity = False


@method("aoft_lora_dagger")
class AOFTLoRADagger(AOFTLoRA):
    """Approximates the paper's LoRA+AOFT†: the released code's maps with the published formula.

    Published: "less than half of LoRA's parameters".  From the released code: the maps, the rank and both initial
    values.  Inferred, with little certainty: that the dagger denotes these maps, and that their bias is kept.
    """

    scale: ScaleInit = "normal"
    start: VectorInit = "zeros"
    sites: str = "qv,fc1,fc2"
    title = "AOFT-LoRA†"
    targets = "q, v, fc1, fc2"
    differs = (
        "The release drops the biases of the adapted maps, has another coefficient in AO, and passes no gradient "
        "through its entry [0, 0]. `aoft_lora_released` is that code."
    )
    starts_as_identity = False


@method("aoft_lora_released")
class AOFTLoRAReleased(AOFTLoRADagger):
    """Reproduces the authors' released LoRA code, including its dropped biases and detached entry [0, 0].

    Source: model/ViT_unitary_lora.py of the release.  The paper publishes none of these details.
    """

    form: Form = "released"
    keep_bias = False
    title = "AOFT-LoRA (released)"
    equation = AOFTLoRA.equation + r",\ b' = 0"
    evidence = "authors' training"
    differs = ""
