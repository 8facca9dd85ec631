"""LoRA, low-rank adaptation (Hu et al., ICLR 2022, arXiv:2106.09685), and two of its variants.

W' = W + (alpha / rank) B A,   A: [rank, in], B: [out, rank]
"""

import math
from typing import Literal

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Paper, later, method
from .initial_values import trunc_normal_
from .updates import LinearUpdateMethod, LowRankUpdate, Transform, Update


class LowRank(LowRankUpdate):
    """x -> scale * B A x."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:  # weight: [outputs, inputs]
        super().__init__()
        outputs, inputs = weight.shape
        self.scale = scale
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))  # zero: initially the pretrained model
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # peft/tuners/lora/layer.py, reset_lora_parameters

    def down_and_up(self) -> tuple[Tensor, Tensor]:
        return self.a, self.b * self.scale

    def projections(self) -> tuple[Tensor, Tensor]:
        """Return the down-projection [rank, inputs] and the transposed up-projection [rank, outputs]."""
        return self.a, self.b.T


class DroppedLowRank(LowRank):
    """x -> drop_path(scale * B A drop(x))."""

    def __init__(self, weight: Tensor, rank: int, scale: float, dropout: float, drop_path: float = 0.0) -> None:
        super().__init__(weight, rank, scale)
        self.dropout, self.drop_path = nn.Dropout(dropout), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        return self.drop_path(super().forward(self.dropout(x)))


@method("lora")
class LoRA(LinearUpdateMethod):
    """Adds a trainable low-rank product to each weight; `alpha = rank` means a scale of one."""

    rank: PositiveInt = 8
    alpha: float = 8.0
    sites: str = "qv"
    title = "LoRA"
    paper = Paper("ICLR", 2022, "2106.09685", "microsoft/LoRA")
    equation = r"W' = W + \tfrac{\alpha}{r} B A"
    targets = "q, v"
    evidence = "authors' module"
    search = {"alpha": (0.8, 8.0, 80.0)}
    backbones = ("vit", "swin")

    def scale(self) -> float:
        return self.alpha / self.rank

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update | Transform:
        return LowRank(weight, self.rank, self.scale())

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs)


class FasterB(LowRank):
    """The update of LoRA+, by whose type its factors are told from those of other methods in a combination."""


@method("lora_plus")
class LoRAPlus(LoRA):
    """Trains B of LoRA at a higher learning rate than A."""

    ratio: float = 16.0  # the paper's 2^4
    """Learning rate of B divided by that of A, which is the recipe's."""
    title = "LoRA+"
    paper = Paper("ICML", 2024, "2402.12354", "nikhil-ghosh-berkeley/loraplus")
    equation = r"W' = W + \tfrac{\alpha}{r} B A,\ \eta_B = \lambda \eta_A"
    differs = (
        "The release also trains vectors, such as the head's bias, at the rate of B; here they keep the recipe's rate. "
        "Weight decay is the recipe's."
    )
    search = {"ratio": (4.0, 16.0)}

    def validate(self) -> None:
        super().validate()
        if self.ratio <= 0:
            raise ValueError(f"ratio={self.ratio} must be positive")

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update | Transform:
        return FasterB(weight, self.rank, self.scale())

    def lr_factors(self, vit: nn.Module) -> dict[nn.Parameter, float]:
        return {module.b: self.ratio for module in vit.modules() if isinstance(module, FasterB)}


@method("rslora")
class RankStabilisedLoRA(LoRA):
    """Divides LoRA's scale by the square root of the rank, so that higher ranks do not learn more slowly."""

    title = "rsLoRA"
    paper = Paper("arXiv", 2023, "2312.03732", "huggingface/peft")
    equation = r"W' = W + \tfrac{\alpha}{\sqrt{r}} B A"
    evidence = "reference implementation"

    def scale(self) -> float:
        return self.alpha / math.sqrt(self.rank)


@method("lora_fused")
class FusedLoRA(LinearUpdateMethod):
    """Adds a low-rank product to the fused qkv, so that query, key and value share one down-projection."""

    rank: PositiveInt = 8
    dropout: Rate = 0.0  # dropout of the input, as in the module; NOAH's training script sets 0.1
    start: Literal["zeros", "released"] = later(default="zeros")
    """Initial B.  released: N(0, 0.02), what NOAH's training starts from, because the model initialises all linear maps
    again (supernet_vision_transformer_timm.py:462,531,686-688)."""
    title = "LoRA (fused qkv)"
    paper = Paper("TPAMI", 2024, "2206.04673", "ZhangYuanhan-AI/NOAH")
    equation = r"W_{qkv}' = W_{qkv} + B A,\ B \in \mathbb{R}^{3d \times r}"
    targets = "q, k, v"
    evidence = "authors' training"
    differs = (
        "The released supernet starts both factors at N(0, 0.02) and trains with dropout 0.1; `start='released'` "
        "and `dropout=0.1` do so."
    )
    backbones = ("vit", "swin")
    search = {"rank": (1, 5, 10)}  # as NOAH: experiments/NOAH/supernet/supernet-B_prompt_VTAB.yaml
    sites, fused = "qkv", True

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update:
        dropped = DroppedLowRank(weight, self.rank, 1.0, self.dropout) if self.dropout else None
        update = dropped or LowRank(weight, self.rank, 1.0)
        if self.start == "released":
            for factor in (update.a, update.b):
                trunc_normal_(factor)
        return update

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs)
