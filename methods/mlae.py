"""MLAE, masked LoRA experts (Wang et al., arXiv:2405.18897): rank-one updates that are dropped one by one in training.

    W' = W + sum_i lambda_i m_i / (1 - p) b_i a_i^T,   m_i ~ Bernoulli(1 - p)

One mask is drawn for each linear map and step; it is the same for all tokens and images.  Without training all experts
are active and m_i / (1 - p) is one.  Source: jie040109/MLAE mlae.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Paper, method
from .updates import ALL_SITES, LinearUpdateMethod, LowRankUpdate, Update


class Experts(LowRankUpdate):
    """x -> sum_i coefficient_i b_i (a_i . x), where training drops whole experts."""

    def __init__(self, weight: Tensor, experts: int, drop: float, coefficient: float) -> None:  # weight: [out, in]
        super().__init__()
        outputs, inputs = weight.shape
        self.drop = drop
        self.a = nn.Parameter(torch.empty(experts, inputs))
        self.b = nn.Parameter(torch.zeros(experts, outputs))  # zero: initially the pretrained model
        self.coefficients = nn.Parameter(torch.full((experts,), coefficient))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def down_and_up(self) -> tuple[Tensor, Tensor]:
        return self.a, (F.dropout(self.coefficients, self.drop, self.training)[:, None] * self.b).T

    def projections(self) -> tuple[Tensor, Tensor]:
        """Return the down-projection [experts, in] and the transposed up-projection [experts, out]."""
        return self.a, self.b


@method("mlae")
class MLAE(LinearUpdateMethod):
    """Splits LoRA into rank-one experts with trained coefficients, and drops experts in training."""

    experts: PositiveInt = 8
    drop: Rate = 0.5
    """Probability of dropping an expert; ours, because the release has no training script."""
    coefficient: float = 1.0
    """Initial coefficient of each expert; unlike LoRA's alpha it is not divided by the rank."""
    sites: str = ALL_SITES
    title = "MLAE"
    paper = Paper("arXiv", 2024, "2405.18897", "jie040109/MLAE")
    equation = r"W' = W + \sum_i \lambda_i \tfrac{m_i}{1-p}\, b_i a_i^\top,\ m_i \sim \mathrm{Bernoulli}(1-p)"
    targets = "q, k, v, o, fc1, fc2"
    evidence = "authors' module"
    differs = "The release has no training script: the adapted maps and the drop rate are ours."
    search = {"drop": (0.3, 0.5, 0.7)}  # ours
    backbones = ("vit", "swin")

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update:
        return Experts(weight, self.experts, self.drop, self.coefficient)

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.experts * (inputs + outputs + 1)
