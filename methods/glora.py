"""GLoRA, generalised LoRA (Chavan et al., 2023, arXiv:2306.07967), in one fixed configuration.

    W' = W + W * A + B,   b' = b + b * D + E + W C

Each of the five is low-rank, a vector, a constant or none (Arnav0400/ViT-Slim GLoRA/layer.py:6-89).  The authors train
all 432 combinations at once and then search for one per linear map; here every map has the one that is given.  As
there (GLoRA/utils.py:6-21), query, key and value are one map, with one C and one second factor of A and B.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .base import Method, Paper, register, require_positive
from .updates import Transform, merge_linears, parse_linears, site_shapes, transform_linears

MatrixForm = Literal["lora", "vector", "constant", "none"]
ColumnForm = Literal["lora", "vector", "none"]
BiasForm = Literal["vector", "constant", "none"]


class Support(nn.Module):
    """Broadcasts to [rows, columns] and is zero at the start: a product of two factors, a column, a number, or zero."""

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
        if bias is None and (method.c, method.d, method.e) != ("none",) * 3:
            raise ValueError("this backbone has a linear map without bias; set c, d and e of glora to 'none'")
        outputs, inputs = weight.shape
        self.a, self.b = (Support(form, outputs, inputs, method.rank) for form in (method.a, method.b))
        self.c = Support(method.c, inputs, 1, method.rank)
        self.d, self.e = (Support(form, outputs, 1, method.rank) for form in (method.d, method.e))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        new_weight = weight + weight * self.a() + self.b()
        if bias is None:
            return new_weight, None
        return new_weight, bias + (bias[:, None] * self.d() + self.e() + weight @ self.c())[:, 0]


@register("glora")
@dataclass(frozen=True)
class GLoRA(Method):
    """Rescaled and shifted weights and biases, each of the five terms in a form of its own; no search."""

    rank: int = 4
    a: MatrixForm = "vector"
    b: MatrixForm = "lora"
    c: ColumnForm = "vector"
    d: BiasForm = "vector"
    e: BiasForm = "vector"
    sites: str = "qkv,o,fc1,fc2"
    title = "GLoRA"
    paper = Paper("arXiv", 2023, "2306.07967", "Arnav0400/ViT-Slim")
    equation = r"W' = W + W \odot A + B, \quad b' = b + b \odot D + E + W C"
    places = "qkv, o, fc1, fc2"
    evidence = "golden"
    version = 2  # 1 stood on q, k and v apart
    search = {"a": ("lora", "vector", "none"), "rank": (4, 8)}

    def __post_init__(self) -> None:
        parse_linears(self.sites, whole=True)
        require_positive(rank=self.rank)
        for name, kind in zip("abcde", (MatrixForm, MatrixForm, ColumnForm, BiasForm, BiasForm), strict=True):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        if {self.a, self.b, self.c, self.d, self.e} == {"none"}:
            raise ValueError("a, b, c, d and e are all 'none', which leaves nothing to train")

    def inject(self, vit: VisionTransformer) -> None:
        transform_linears(vit, self.sites, lambda weight, bias: Generalised(weight, bias, self), whole=True)

    def merge(self, vit: VisionTransformer) -> None:
        merge_linears(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        def size(form: str, rows: int, columns: int) -> int:
            return {"lora": self.rank * (rows + columns), "vector": rows, "constant": 1, "none": 0}[form]

        return sum(
            size(self.a, outputs, inputs)
            + size(self.b, outputs, inputs)
            + size(self.c, inputs, 1)
            + size(self.d, outputs, 1)
            + size(self.e, outputs, 1)
            for inputs, outputs in site_shapes(vit, self.sites, whole=True)
        )
