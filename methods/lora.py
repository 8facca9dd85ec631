"""LoRA (Hu et al., ICLR 2022, arXiv:2106.09685): W' = W + (alpha / rank) B A."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, at_least_one, register
from .updates import Update, merge_linears, parse_sites, site_shapes, update_linears


class LowRank(Update):
    """x -> scale * B A x."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:  # weight: [outputs, inputs]
        super().__init__()
        outputs, inputs = weight.shape
        self.scale = scale
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))  # zero: the model starts unchanged
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # peft/tuners/lora/layer.py, reset_lora_parameters

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return F.linear(F.linear(x, self.a), self.b) * self.scale

    def delta(self) -> Tensor:
        return self.b @ self.a * self.scale


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

    def __post_init__(self) -> None:
        parse_sites(self.sites)
        at_least_one(rank=self.rank)

    def inject(self, vit: VisionTransformer) -> None:
        scale = self.alpha / self.rank
        update_linears(vit, self.sites, lambda weight, _: LowRank(weight, self.rank, scale))

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.rank * (inputs + outputs) for inputs, outputs in site_shapes(vit, self.sites))
