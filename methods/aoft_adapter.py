"""AOFT in place of an adapter (arXiv:2507.13260): linear, so that it merges into attn.proj or fc2.

    h -> h + AO(q_up) diag(scale) AO(q_down)^T h,   h: [b, n, d], the output of a branch

The paper puts adapters after MHA and FFN, but its parameter counts fit an adapter after the FFN only.  The released
code puts both on the residual stream, each with a frozen LayerNorm of its own input (model/ViT_unitary_adapter.py),
which cannot be merged.
"""

from typing import Literal, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .anatomy import blocks_of
from .aoft import AOFTUpdate, AOFTUpdates, Form, ScaleInit, VectorInit
from .base import method
from .blocks import Residual, branches

_LAST_LINEAR = {"attn": "proj", "mlp": "fc2"}


class SequentialAdapter(nn.Module):
    """h = branch(x);  x -> h + update(h), before LayerScale and the residual addition."""

    def __init__(self, branch: nn.Module, update: AOFTUpdate) -> None:
        super().__init__()
        self.branch, self.adapter = branch, Residual(update)

    def forward(self, x: torch.Tensor, **masks: torch.Tensor | None) -> torch.Tensor:  # [b, n, d]
        return self.adapter(self.branch(x, **masks))

    @torch.no_grad()
    def merged(self, last: str) -> nn.Module:
        """Return the branch with the update merged into its linear map `last`."""
        linear, delta = cast(nn.Linear, getattr(self.branch, last)), cast(AOFTUpdate, self.adapter.adapter).delta()
        linear.weight += delta @ linear.weight
        if linear.bias is not None:
            linear.bias.add_(delta @ linear.bias)
        return self.branch


@method("aoft_adapter")
class AOFTAdapter(AOFTUpdates):
    """Adds a linear adapter of approximately orthogonal projections after the MLP; initially the pretrained model."""

    after: Literal["mlp", "attn", "both"] = "mlp"
    title = "AOFT-Adapter"
    paper = AOFTUpdates.paper
    evidence = "paper only"
    equation = r"h \leftarrow h + AO(q_{up})\,\mathrm{diag}(\lambda)\,AO(q_{down})^T h"
    targets = "after the MLP"
    differs = (
        "The release puts adapters on the residual stream, after attention and MLP, each behind a frozen LayerNorm. "
        "Vectors start at zero there, scales at random, and AO has another coefficient. `aoft_adapter_released` is "
        "that code."
    )
    backbones = ("vit", "swin")

    def branches(self) -> tuple[str, ...]:
        return ("attn", "mlp") if self.after == "both" else (self.after,)

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            for name in self.branches():
                update = self.update(ref.width, ref.width)
                setattr(ref.block, name, SequentialAdapter(ref.block.get_submodule(name), update))

    def merge(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            for name in self.branches():
                adapted = cast(SequentialAdapter, ref.block.get_submodule(name))
                setattr(ref.block, name, adapted.merged(_LAST_LINEAR[name]))

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(self.branches()) * sum(self.update_params(ref.width, ref.width) for ref in blocks_of(vit))


@method("aoft_adapter_paper")
class AOFTAdapterPaper(AOFTAdapter):
    """Implements the paper's Adapter row: after the MLP, without scaling vector.

    Published: the formula, for MHA and FFN.  From the released code: rank 8, no activation, and the initial value
    q = 0.  Inferred: the position after the FFN only, from the parameter count, and on the branch, as in the equation
    of AOFT's predecessor.
    """

    scale: ScaleInit = "none"
    start: VectorInit = "zeros"
    title = "AOFT-Adapter (paper)"
    equation = r"h \leftarrow h + AO(q_{up})\,AO(q_{down})^T h"
    differs = (
        "The release puts adapters on the residual stream, after attention and MLP, each behind a frozen LayerNorm, "
        "with a scaling vector and another coefficient in AO. `aoft_adapter_released` is that code."
    )
    starts_as_identity = False


@method("aoft_adapter_released")
class AOFTAdapterReleased(AOFTUpdates):
    """Reproduces the authors' released adapter code: on the residual stream, after attention and MLP.

    Source: model/ViT_unitary_adapter.py of the release.  The paper publishes none of these details.
    """

    form: Form = "released"
    scale: ScaleInit = "uniform"
    start: VectorInit = "zeros"
    title = "AOFT-Adapter (released)"
    paper = AOFTUpdates.paper
    evidence = "authors' module"
    equation = r"x \leftarrow x + AO(q_{up})\,\mathrm{diag}(\lambda)\,AO(q_{down})^T\,\mathrm{LN}(x)"
    targets = "residual stream, after attention and MLP"
    backbones = ("vit", "swin")
    starts_as_identity = False

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            attention, mlp = branches(ref.block)
            ref.replace(nn.Sequential(attention, self.adapter(ref.width), mlp, self.adapter(ref.width)))

    def adapter(self, d: int) -> Residual:
        norm = nn.LayerNorm(d, eps=1e-6, elementwise_affine=False)  # the code never trains its weight 1 and bias 0
        return Residual(nn.Sequential(norm, self.update(d, d)))

    def expected_params(self, vit: VisionTransformer) -> int:
        return 2 * sum(self.update_params(ref.width, ref.width) for ref in blocks_of(vit))
