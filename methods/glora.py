"""GLoRA, generalised LoRA (Chavan et al., 2023, arXiv:2306.07967), in one fixed configuration.

    W' = W + W * A + B,   b' = b + b * D + E + W C

Each of the five terms is low-rank, a vector, a constant or none (Arnav0400/ViT-Slim GLoRA/layer.py:6-89).  The authors
train all 432 combinations together and then search one per linear map.  Here every map has the configured combination.
As in the release (GLoRA/utils.py:6-21), query, key and value are one map, with one C and one second factor of A and B.
"""

from typing import Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Paper, method
from .updates import LinearUpdateMethod, Transform, lacks_bias

MatrixForm = Literal["lora", "vector", "constant", "none"]
ColumnForm = Literal["lora", "vector", "none"]
BiasForm = Literal["vector", "constant", "none"]


class Support(nn.Module):
    """One term of the update, initially zero; its value broadcasts to [rows, columns].

    form: "lora" is a product of two factors, "vector" a column, "constant" a number, "none" a frozen zero.
    """

    def __init__(self, form: MatrixForm, rows: int, columns: int, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(nn.init.xavier_uniform_(torch.empty(rank, columns))) if form == "lora" else None
        down = torch.zeros(1 if form == "constant" else rows, rank if form == "lora" else 1)
        if form == "none":
            self.register_buffer("down", down, persistent=False)
        else:
            self.down = nn.Parameter(down)

    def forward(self) -> Tensor:
        return self.down if self.up is None else self.down @ self.up


class Generalised(Transform):
    """W, b -> W + W * A + B, b + b * D + E + W C."""

    def __init__(self, weight: Tensor, bias: Tensor | None, method: "GLoRA") -> None:  # [outputs, inputs], [outputs]
        super().__init__()
        outputs, inputs = weight.shape
        self.a, self.b = (Support(form, outputs, inputs, method.rank) for form in (method.a, method.b))
        self.c = Support(method.c, inputs, 1, method.rank)
        self.d, self.e = (Support(form, outputs, 1, method.rank) for form in (method.d, method.e))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        new_weight = weight + weight * self.a() + self.b()
        if bias is None:
            return new_weight, None
        return new_weight, bias + (bias[:, None] * self.d() + self.e() + weight @ self.c())[:, 0]


@method("glora")
class GLoRA(LinearUpdateMethod):
    """Rescales and shifts weights and biases by five terms, each of a configurable form, without search."""

    rank: PositiveInt = 4
    a: MatrixForm = "vector"
    b: MatrixForm = "lora"
    c: ColumnForm = "vector"
    d: BiasForm = "vector"
    e: BiasForm = "vector"
    sites: str = "qkv,o,fc1,fc2"
    title = "GLoRA"
    paper = Paper("arXiv", 2023, "2306.07967", "Arnav0400/ViT-Slim")
    equation = r"W' = W + W \odot A + B, \quad b' = b + b \odot D + E + W C"
    targets = "qkv, o, fc1, fc2"
    evidence = "authors' training"
    differs = (
        "The release trains a supernet, in which each map draws one of 432 forms in each step, and then searches a "
        "form for each map. Here all maps have one form."
    )
    version = 2  # version 1 updated q, k and v separately
    search = {"a": ("lora", "vector", "none"), "rank": (4, 8)}
    fused = True

    def validate(self) -> None:
        super().validate()
        if {self.a, self.b, self.c, self.d, self.e} == {"none"}:
            raise ValueError("a, b, c, d and e are all 'none', which leaves nothing to train")

    def validate_backbone(self, vit: VisionTransformer) -> None:
        if (self.c, self.d, self.e) != ("none",) * 3 and lacks_bias(vit, self.sites):
            raise ValueError("it has a linear map without bias; set c, d and e of glora to 'none'")

    def make_update(self, weight: Tensor, bias: Tensor | None) -> Transform:
        return Generalised(weight, bias, self)

    def update_params(self, inputs: int, outputs: int) -> int:
        def size(form: str, rows: int, columns: int) -> int:
            return {"lora": self.rank * (rows + columns), "vector": rows, "constant": 1, "none": 0}[form]

        matrices = size(self.a, outputs, inputs) + size(self.b, outputs, inputs)
        return matrices + size(self.c, inputs, 1) + size(self.d, outputs, 1) + size(self.e, outputs, 1)
