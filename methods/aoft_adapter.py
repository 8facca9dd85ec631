"""AOFT in an adapter's place (arXiv:2507.13260): linear, so that the mergeable form folds into attn.proj or fc2.

The paper's adapters stand behind MHA and FFN; its parameter counts fit an adapter behind the FFN alone.  The
released code puts both on the residual stream instead, each reading it through a frozen LayerNorm of its own
(model/ViT_unitary_adapter.py), which cannot be merged.
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .anatomy import blocks_of
from .aoft import AOFTUpdate, AOFTUpdates, Form, Scale, Start
from .base import register
from .blocks import Residual, branches

After = Literal["mlp", "attn", "both"]
_LAST_LINEAR = {"attn": "proj", "mlp": "fc2"}


class SequentialAdapter(nn.Module):
    """h = branch(x);  x -> h + update(h), before LayerScale and the residual add."""

    def __init__(self, branch: nn.Module, update: AOFTUpdate) -> None:
        super().__init__()
        self.branch, self.adapter = branch, Residual(update)

    def forward(self, x: torch.Tensor, **masks: torch.Tensor | None) -> torch.Tensor:  # [b, n, d]
        return self.adapter(self.branch(x, **masks))

    @torch.no_grad()
    def merged(self, last: str) -> nn.Module:
        """The branch with the update folded into its linear map `last`."""
        linear, delta = cast(nn.Linear, getattr(self.branch, last)), cast(AOFTUpdate, self.adapter.adapter).delta()
        linear.weight += delta @ linear.weight
        if linear.bias is not None:
            linear.bias.add_(delta @ linear.bias)
        return self.branch


@register("aoft_adapter")
@dataclass(frozen=True)
class AOFTAdapter(AOFTUpdates):
    """A linear adapter of approximately orthogonal projections behind the MLP, starting at the pretrained model."""

    after: After = "mlp"
    title = "AOFT-Adapter"
    equation = r"h \leftarrow h + AO(q_{up})\,\mathrm{diag}(\lambda)\,AO(q_{down})^T h"
    places = "behind the MLP"
    backbones = ("vit", "swin")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.after not in get_args(After):
            raise ValueError(f"after must be one of {', '.join(get_args(After))}, not {self.after!r}")

    def branches(self) -> tuple[str, ...]:
        return ("attn", "mlp") if self.after == "both" else (self.after,)

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            for name in self.branches():
                update = self.update(place.width, place.width)
                setattr(place.block, name, SequentialAdapter(place.block.get_submodule(name), update))

    def merge(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            for name in self.branches():
                behind = cast(SequentialAdapter, place.block.get_submodule(name))
                setattr(place.block, name, behind.merged(_LAST_LINEAR[name]))

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(self.branches()) * sum(self.update_params(place.width, place.width) for place in blocks_of(vit))


@register("aoft_adapter_paper")
@dataclass(frozen=True)
class AOFTAdapterPaper(AOFTAdapter):
    """The paper's Adapter row: behind the MLP, no scaling vector.

    Published: the formula, for MHA and FFN.  Read in the released code: rank 8, no activation, q = 0 at the start.
    Inferred: behind the FFN alone, from the parameter count; on the branch, as the predecessor's equation has it.
    """

    scale: Scale = "none"
    start: Start = "zeros"
    title = "AOFT-Adapter (paper)"
    equation = r"h \leftarrow h + AO(q_{up})\,AO(q_{down})^T h"
    starts_as_identity = False


@register("aoft_adapter_released")
@dataclass(frozen=True)
class AOFTAdapterReleased(AOFTUpdates):
    """The authors' adapter code as it runs: on the residual stream, behind attention and MLP.

    All of it is read in the released code (model/ViT_unitary_adapter.py); none of its particulars is published.
    """

    form: Form = "released"
    scale: Scale = "uniform"
    start: Start = "zeros"
    title = "AOFT-Adapter (released)"
    evidence = "golden"
    equation = r"x \leftarrow x + AO(q_{up})\,\mathrm{diag}(\lambda)\,AO(q_{down})^T\,\mathrm{LN}(x)"
    places = "residual stream, behind attention and MLP"
    backbones = ("vit", "swin")
    starts_as_identity = False

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            attention, mlp = branches(place.block)
            place.replace(nn.Sequential(attention, self.adapter(place.width), mlp, self.adapter(place.width)))

    def adapter(self, d: int) -> Residual:
        norm = nn.LayerNorm(d, eps=1e-6, elementwise_affine=False)  # in the code weight 1 and bias 0, never trained
        return Residual(nn.Sequential(norm, self.update(d, d)))

    def expected_params(self, vit: VisionTransformer) -> int:
        return 2 * sum(self.update_params(place.width, place.width) for place in blocks_of(vit))
