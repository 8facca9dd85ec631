"""AOFT, approximately orthogonal fine-tuning (ICCV 2025, arXiv:2507.13260).

One vector q = (q0, q') of length D generates r approximately orthogonal columns, the first r of

    Q(q) = [ q0         -q'^T      ]          c = 1 / (1 + q0)
           [ q'    I - c q' q'^T   ]

which is the rotation taking e0 to q when |q| = 1; the norm is not enforced, hence "approximately".  Two such
matrices are the down- and up-projection of an update

    x -> AO(q_down) diag(scale) AO(q_up)^T x,

so the number of parameters does not grow with the rank.  The scaling vector is the starred form, AOFT*.
Released code: CalliopeYang/AOFT 2ffd89c; it uses c = 1 / ((1 + q0)^2 + 1) and lets no gradient through entry [0, 0].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register
from .updates import Update, merge_linears, parse_sites, site_shapes, update_linears

Form = Literal["paper", "released", "exact"]
Scale = Literal["zeros", "ones", "normal", "uniform", "none"]
Start = Literal["normal", "zeros"]

POLE_GUARD = 1e-3
"""Ours: |1 + q0| is kept above this, where the paper's coefficient has its pole.  Training starts at q0 = 0."""


def approximately_orthogonal(q: Tensor, columns: int, form: Form = "paper") -> Tensor:
    """The first `columns` columns of Q(q), [d, columns], from q: [d].

    `paper` is the published matrix, `released` the authors' code, `exact` the published one of q / |q|, whose
    columns are orthonormal.
    """
    if form == "exact":
        q = q / q.norm()
    q0, tail = q[:1], q[1:]
    if form == "released":
        coefficient = 1 / ((1 + q0) ** 2 + 1)
        corner = q0.detach()
    else:
        pole = 1 + q0
        coefficient = 1 / torch.where(pole.abs() < POLE_GUARD, torch.full_like(pole, POLE_GUARD), pole)
        corner = q0
    row = tail[: columns - 1]
    block = torch.eye(len(tail), columns - 1, dtype=q.dtype, device=q.device) - coefficient * tail[:, None] * row
    return torch.cat([torch.cat([corner, tail])[:, None], torch.cat([-row[None], block])], dim=1)


class AOFTUpdate(Update):
    """x -> AO(q_up) diag(scale) AO(q_down)^T x."""

    def __init__(self, inputs: int, outputs: int, rank: int, form: Form, scale: Scale, start: Start) -> None:
        super().__init__()
        if rank > min(inputs, outputs):
            raise ValueError(f"rank {rank} exceeds the {min(inputs, outputs)} dimensions it has here")
        self.rank = rank
        self.form: Form = form
        self.q_down, self.q_up = (nn.Parameter(_start_vector(width, start)) for width in (inputs, outputs))
        self.scale = None if scale == "none" else nn.Parameter(_SCALES[scale](rank))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Scaled down-projection [inputs, rank] and up-projection [outputs, rank]."""
        down = approximately_orthogonal(self.q_down, self.rank, self.form)
        up = approximately_orthogonal(self.q_up, self.rank, self.form)
        return down if self.scale is None else down * self.scale, up

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        down, up = self.factors()
        return F.linear(F.linear(x, down.T), up)

    def delta(self) -> Tensor:
        down, up = self.factors()
        return up @ down.T


_SCALES: dict[str, Callable[[int], Tensor]] = {
    "zeros": torch.zeros,
    "ones": torch.ones,
    "normal": torch.randn,  # released LoRA file
    "uniform": torch.rand,  # released adapter file
}


def _start_vector(width: int, start: Start) -> Tensor:
    """q0 = 0, and q' either zero (released code) or N(0, 1/D): near the unit sphere, so near orthogonal columns."""
    q = torch.zeros(width)
    if start == "normal":
        q[1:].normal_(std=width**-0.5)
    return q


@dataclass(frozen=True)
class _AOFT(Method):
    rank: int = 8
    form: Form = "paper"
    scale: Scale = "zeros"
    """Start of the scaling vector.  Zero starts at the pretrained model (ours); `none` is AOFT without star."""
    start: Start = "normal"
    """Start of q' (ours: zero `scale` needs projections that already span something)."""
    paper = Paper("ICCV", 2025, "2507.13260", "CalliopeYang/AOFT")
    equation = r"W' = W + AO(q_{up})\,\mathrm{diag}(\lambda)\,AO(q_{down})^T"
    evidence = "golden"

    def __post_init__(self) -> None:
        for field, kind in (("form", Form), ("scale", Scale), ("start", Start)):
            if getattr(self, field) not in get_args(kind):
                raise ValueError(f"{field} must be one of {', '.join(get_args(kind))}, not {getattr(self, field)!r}")
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, not {self.rank}")
        if self.form == "exact" and self.start == "zeros":
            raise ValueError("form='exact' divides by |q|, so it cannot start at zero; use start='normal'")

    def update(self, inputs: int, outputs: int) -> AOFTUpdate:
        return AOFTUpdate(inputs, outputs, self.rank, self.form, self.scale, self.start)

    def update_params(self, inputs: int, outputs: int) -> int:
        return inputs + outputs + (0 if self.scale == "none" else self.rank)


@register("aoft_lora")
@dataclass(frozen=True)
class AOFTLoRA(_AOFT):
    """LoRA's placement with approximately orthogonal projections."""

    sites: str = "qv"
    title = "AOFT-LoRA"
    places = "q, v"

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_sites(self.sites)

    def inject(self, vit: VisionTransformer) -> None:
        update_linears(vit, self.sites, lambda weight, _: self.update(weight.shape[1], weight.shape[0]))

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.update_params(*shape) for shape in site_shapes(vit, self.sites))


class AdaptedMlp(nn.Module):
    """h = MLP(x); y = h + AO(q_up) diag(scale) AO(q_down)^T h."""

    def __init__(self, mlp: nn.Module, update: AOFTUpdate) -> None:
        super().__init__()
        self.mlp, self.update = mlp, update

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        h = self.mlp(x)
        return h + self.update(h)


@register("aoft_adapter")
@dataclass(frozen=True)
class AOFTAdapter(_AOFT):
    """A linear adapter after the MLP, before the residual add, so that it folds into fc2."""

    title = "AOFT-Adapter"
    places = "after the MLP"

    def inject(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            block.mlp = AdaptedMlp(cast(nn.Module, block.mlp), self.update(vit.embed_dim, vit.embed_dim))

    @torch.no_grad()
    def merge(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            adapted = cast(AdaptedMlp, block.mlp)
            fc2, delta = cast(nn.Linear, adapted.mlp.fc2), adapted.update.delta()
            fc2.weight.add_(delta @ fc2.weight)
            if fc2.bias is not None:
                fc2.bias.add_(delta @ fc2.bias)
            block.mlp = adapted.mlp

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * self.update_params(vit.embed_dim, vit.embed_dim)
