"""LoRA (Hu et al., ICLR 2022, arXiv:2106.09685): W' = W + (alpha / rank) B A, and two of its variants."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of
from .base import Method, Paper, register, require_positive
from .updates import LowRankUpdate, UpdatedLinear, merge_linears, parse_sites, site_shapes, update_linears


class LowRank(LowRankUpdate):
    """x -> scale * B A x."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:  # [outputs, inputs]
        super().__init__()
        outputs, inputs = weight.shape
        self.scale = scale
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))  # zero: the model starts unchanged
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # peft/tuners/lora/layer.py, reset_lora_parameters

    def down_and_up(self) -> tuple[Tensor, Tensor]:
        return self.a, self.b * self.scale

    def projections(self) -> tuple[Tensor, Tensor]:
        """Down [rank, inputs] and up [rank, outputs], as rows."""
        return self.a, self.b.T


class DroppedLowRank(LowRank):
    """x -> drop_path(scale * B A drop(x))."""

    def __init__(self, weight: Tensor, rank: int, scale: float, dropout: float, drop_path: float = 0.0) -> None:
        super().__init__(weight, rank, scale)
        self.dropout, self.drop_path = nn.Dropout(dropout), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return self.drop_path(super().forward(self.dropout(x)))


@register("lora")
@dataclass(frozen=True)
class LoRA(Method):
    """A low-rank product added to each weight; `alpha = rank` means a scale of one."""

    rank: int = 8
    alpha: float = 8.0
    sites: str = "qv"
    title = "LoRA"
    paper = Paper("ICLR", 2022, "2106.09685", "microsoft/LoRA")
    equation = r"W' = W + \tfrac{\alpha}{r} B A"
    places = "q, v"
    evidence = "golden"
    search = {"alpha": (0.8, 8.0, 80.0)}
    backbones = ("vit", "swin")

    def __post_init__(self) -> None:
        parse_sites(self.sites)
        require_positive(rank=self.rank)

    def inject(self, vit: VisionTransformer) -> None:
        update_linears(vit, self.sites, lambda weight, _: LowRank(weight, self.rank, self.scale()))

    def scale(self) -> float:
        return self.alpha / self.rank

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.rank * (inputs + outputs) for inputs, outputs in site_shapes(vit, self.sites))


@register("rslora")
@dataclass(frozen=True)
class RankStabilisedLoRA(LoRA):
    """LoRA whose scale falls with the root of the rank, so that higher ranks do not learn more slowly."""

    title = "rsLoRA"
    paper = Paper("arXiv", 2023, "2312.03732", "huggingface/peft")
    equation = r"W' = W + \tfrac{\alpha}{\sqrt{r}} B A"

    def scale(self) -> float:
        return self.alpha / math.sqrt(self.rank)


@register("lora_fused")
@dataclass(frozen=True)
class FusedLoRA(Method):
    """A low-rank product on the fused qkv, whose projection down is shared by query, key and value."""

    rank: int = 8
    dropout: float = 0.0  # of the input, as the module has it; NOAH's training script sets 0.1
    title = "LoRA (fused qkv)"
    paper = Paper("TPAMI", 2024, "2206.04673", "ZhangYuanhan-AI/NOAH")
    equation = r"W_{qkv}' = W_{qkv} + B A,\ B \in \mathbb{R}^{3d \times r}"
    places = "q, k, v"
    evidence = "golden"
    backbones = ("vit", "swin")
    search = {"rank": (1, 5, 10)}  # as NOAH: experiments/NOAH/supernet/supernet-B_prompt_VTAB.yaml

    def __post_init__(self) -> None:
        require_positive(rank=self.rank)

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            attention = place.block.get_submodule("attn")
            qkv = cast(nn.Linear, attention.qkv)
            shape = qkv.weight, self.rank, 1.0
            update = DroppedLowRank(*shape, self.dropout) if self.dropout else LowRank(*shape)
            attention.qkv = UpdatedLinear(qkv, ("qkv",), {"qkv": update})

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.rank * (place.width + 3 * place.width) for place in blocks_of(vit))
