"""AOFT, approximately orthogonal fine-tuning (ICCV 2025, arXiv:2507.13260): the generator, and AOFT in LoRA's place.

One vector q = (q0, q') of length D generates r approximately orthogonal columns AO(q), the first r of

    Q(q) = [ q0         -q'^T      ]          c = 1 / (1 + q0)
           [ q'    I - c q' q'^T   ]

which is the rotation taking e0 to q when |q| = 1; the norm is not enforced, hence "approximately".  Two such
matrices are the down- and up-projection of an update

    x -> AO(q_up) diag(scale) AO(q_down)^T x,

so the number of parameters does not grow with the rank.  The scaling vector is the starred form, AOFT*.

What is known of the paper, and how: the formula, both projections and the star are published; the released code
(CalliopeYang/AOFT 2ffd89c) uses c = 1 / ((1 + q0)^2 + 1), lets no gradient through entry [0, 0], starts from q = 0
and drops the bias of the linear maps it adapts; that the LoRA rows of the paper's tables mean q and v is inferred
from their parameter counts.  docs/aoft.md has the whole account.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register, require_positive
from .updates import LowRankUpdate, merge_linears, parse_sites, site_shapes, update_linears

Form = Literal["paper", "released", "exact"]
Scale = Literal["zeros", "ones", "normal", "uniform", "none"]
Start = Literal["zeros", "normal", "identity"]

POLE_GUARD = 1e-3
"""Ours: |1 + q0| is kept above this, where the paper's coefficient has its pole.  Training starts at q0 = 0 or 1."""


def approximately_orthogonal(q: Tensor, columns: int, form: Form = "paper") -> Tensor:
    """The first `columns` columns of Q(q), [d, columns], from q: [d].

    `paper` is the published matrix, `released` the authors' code, `exact` the published one of q / |q|, whose
    columns are orthonormal.  Column 0 is (q0; q'), column j is e_j - q_j (1; c q').
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


def start_vector(width: int, start: Start) -> Tensor:
    """q: [width].  `zeros` is the released code's; the others are ours.

    `normal` has q0 = 0 and q' ~ N(0, 1/width): near the unit sphere, so near orthogonal columns.
    `identity` is q = e0, where Q(q) = I and the columns are exactly orthonormal.
    """
    q = torch.zeros(width)
    if start == "normal":
        q[1:].normal_(std=width**-0.5)
    elif start == "identity":
        q[0] = 1.0
    return q


SCALES: dict[str, Callable[[int], Tensor]] = {
    "zeros": torch.zeros,
    "ones": torch.ones,
    "normal": torch.randn,  # released LoRA file
    "uniform": torch.rand,  # released adapter file
}


class AOFTUpdate(LowRankUpdate):
    """x -> AO(q_up) diag(scale) AO(q_down)^T x.

    The D x r matrices are built once a step: that was the faster way by measurement (perf/aoft_products.py), the
    other being products with identity plus a rank-two term.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, form: Form, scale: Scale, start: Start) -> None:
        super().__init__()
        if rank > min(inputs, outputs):
            raise ValueError(f"rank {rank} exceeds the {min(inputs, outputs)} dimensions it has here")
        self.rank = rank
        self.form: Form = form
        self.q_down, self.q_up = (nn.Parameter(start_vector(width, start)) for width in (inputs, outputs))
        self.scale = None if scale == "none" else nn.Parameter(SCALES[scale](rank))

    def columns(self) -> tuple[Tensor, Tensor]:
        """AO(q_down) [inputs, rank] and AO(q_up) [outputs, rank]."""
        down = approximately_orthogonal(self.q_down, self.rank, self.form)
        up = approximately_orthogonal(self.q_up, self.rank, self.form)
        return down, up

    def down_and_up(self) -> tuple[Tensor, Tensor]:
        down, up = self.columns()
        return (down if self.scale is None else down * self.scale).T, up

    def projections(self) -> tuple[Tensor, Tensor]:
        """Down [rank, inputs] and up [rank, outputs], as rows, without the scale."""
        down, up = self.columns()
        return down.T, up.T


class AOFTUpdateWithoutBias(AOFTUpdate):
    """The same, minus the `bias` [outputs] of the linear map that it is added to, as the released code has it."""

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
    """What all forms of AOFT share."""

    form: Form = "paper"
    scale: Scale = "zeros"
    """Start of the scaling vector.  Zero starts at the pretrained model (ours); `none` is AOFT without star."""
    start: Start = "normal"
    """Start of the generating vectors; a zero `scale` needs projections that already span something."""
    paper = Paper("ICCV", 2025, "2507.13260", "CalliopeYang/AOFT")
    evidence = "closed form"

    def __post_init__(self) -> None:
        for field, kind in (("form", Form), ("scale", Scale), ("start", Start)):
            if getattr(self, field) not in get_args(kind):
                raise ValueError(f"{field} must be one of {', '.join(get_args(kind))}, not {getattr(self, field)!r}")
        if self.form == "exact" and self.start == "zeros":
            raise ValueError("form='exact' divides by |q|, so it cannot start at zero; use start='normal'")


@dataclass(frozen=True)
class AOFTUpdates(AOFT):
    """AOFT as pairs of projections."""

    rank: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(rank=self.rank)

    def update(self, inputs: int, outputs: int, drop: Tensor | None = None) -> AOFTUpdate:
        """drop: a bias [outputs]."""
        arguments = inputs, outputs, self.rank, self.form, self.scale, self.start
        return AOFTUpdate(*arguments) if drop is None else AOFTUpdateWithoutBias(*arguments, bias=drop)

    def update_params(self, inputs: int, outputs: int) -> int:
        return inputs + outputs + (0 if self.scale == "none" else self.rank)


@register("aoft_lora")
@dataclass(frozen=True)
class AOFTLoRA(AOFTUpdates):
    """LoRA's placement with approximately orthogonal projections, starting at the pretrained model."""

    sites: str = "qv"
    keep_bias: ClassVar[bool] = True
    """False drops the pretrained bias of every adapted linear map, as the released code does."""
    backbones = ("vit", "swin")
    title = "AOFT-LoRA"
    equation = r"W' = W + AO(q_{up})\,\mathrm{diag}(\lambda)\,AO(q_{down})^T"
    places = "q, v"

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_sites(self.sites)

    def inject(self, vit: VisionTransformer) -> None:
        def make(weight: Tensor, bias: Tensor | None) -> AOFTUpdate:
            outputs, inputs = weight.shape
            return self.update(inputs, outputs, None if self.keep_bias else bias)

        update_linears(vit, self.sites, make)

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.update_params(*shape) for shape in site_shapes(vit, self.sites))


@register("aoft_lora_paper")
@dataclass(frozen=True)
class AOFTLoRAPaper(AOFTLoRA):
    """The paper's LoRA row: q and v, no scaling vector.

    Published: the formula.  Read in the released code: rank 8 and q = 0 at the start, which makes the update
    diag(0, 1, ..., 1) on the first 8 coordinates.  Inferred: q and v, from the parameter count; the bias is kept.
    """

    scale: Scale = "none"
    start: Start = "zeros"
    title = "AOFT-LoRA (paper)"
    equation = r"W' = W + AO(q_{up})\,AO(q_{down})^T"
    starts_as_identity = False


@register("aoft_lora_dagger")
@dataclass(frozen=True)
class AOFTLoRADagger(AOFTLoRA):
    """The paper's LoRA+AOFT†, as far as it can be told: the released placement in the published form.

    Published: "less than half of LoRA's parameters".  Read in the released code: sites, rank, both starts.
    Inferred, with little certainty: that the dagger means these sites; the bias is kept.
    """

    scale: Scale = "normal"
    start: Start = "zeros"
    sites: str = "qv,fc1,fc2"
    title = "AOFT-LoRA†"
    places = "q, v, fc1, fc2"
    starts_as_identity = False


@register("aoft_lora_released")
@dataclass(frozen=True)
class AOFTLoRAReleased(AOFTLoRADagger):
    """The authors' LoRA code as it runs, dropped biases and detached corner included.

    All of it is read in the released code (model/ViT_unitary_lora.py); none of its particulars is published.
    """

    form: Form = "released"
    keep_bias = False
    title = "AOFT-LoRA (released)"
    equation = AOFTLoRA.equation + r",\ b' = 0"
    evidence = "golden"
