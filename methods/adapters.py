"""Bottleneck adapters at the positions that the literature proposes.

    A(h) = W_u GELU(W_d h + b_d) + b_u,   W_d: [r, d], W_u: [d, r]

Positions, initialisation and regularisation are those of visinf/adapter_plus (adapter_plus/vit_adapter.py,
conf/adapter/), which compares them on ViTs.  The papers cited by each class proposed the position, mostly for language
models.  The last class is NOAH's adapter, with another activation and initialisation.
"""

from dataclasses import dataclass
from typing import Literal

from timm.layers.activations import QuickGELU
from timm.layers.drop import DropPath
from timm.layers.layer_scale import LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of
from .arguments import PositiveInt, Rate
from .base import Method, Paper, later, method
from .blocks import Residual, branches, init_as_timm
from .initial_values import trunc_normal_

ADAPTERS_STRIKE_BACK = Paper("CVPR", 2024, "2406.06820", "visinf/adapter_plus")


class Bottleneck(nn.Module):
    """h -> drop_path(Up(activation(Down(h))))."""

    def __init__(self, d: int, bottleneck: int, activation: nn.Module, drop_path: float = 0.0) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(d, bottleneck), nn.Linear(bottleneck, d)
        self.activation, self.drop_path = activation, DropPath(drop_path)

    def forward(self, h: Tensor) -> Tensor:  # [b, n, d]
        return self.drop_path(self.up(self.activation(self.down(h))))


class ReadsResidual(nn.Module):
    """A parallel adapter that reads the residual stream: (x, h) -> adapter(x)."""

    def __init__(self, adapter: nn.Module) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # [b, n, d]
        return self.adapter(x)


def init_houlsby(module: nn.Module) -> None:
    """Initialise a linear map close to zero; if both projections were zero, neither would get a gradient."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.01, limit=0.02)  # vit_adapter.py:52-62
        nn.init.zeros_(module.bias)


def init_noah(module: nn.Module) -> None:
    """Initialise a linear map as NOAH's adapter does."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)  # NOAH model/module/adapter_super.py:37-42
        nn.init.normal_(module.bias, std=1e-6)


def adapt_output(block: nn.Module, branch: int, adapter: nn.Module) -> None:
    """Apply h -> h + adapter(h) to the output of branch 1 (attention) or 2 (MLP) before its residual addition."""
    name = f"drop_path{branch}"  # the last module of a branch; both repositories adapt its output
    setattr(block, name, nn.Sequential(block.get_submodule(name), Residual(adapter)))


def bottleneck_params(vit: VisionTransformer, bottleneck: int) -> int:
    """Count the parameters of one adapter with biases per block."""
    return sum(2 * ref.width * bottleneck + bottleneck + ref.width for ref in blocks_of(vit))


@dataclass(frozen=True)
class _Adapter(Method):
    bottleneck: PositiveInt = 8
    drop_path: Rate = 0.1
    """Probability of skipping the adapter for an image in training (conf/adapter/base_adapter.yaml)."""
    evidence = "authors' module"
    search = {"bottleneck": (1, 2, 4, 8, 16, 32)}  # conf/experiment/vtab/adapter_plus_dim1-32.yaml
    starts_as_identity = False  # `init_houlsby` is only close to zero
    backbones = ("vit", "swin")

    def make_activation(self) -> nn.Module:
        return nn.GELU()

    def adapter(self, width: int) -> nn.Module:
        return Bottleneck(width, self.bottleneck, self.make_activation(), self.drop_path).apply(init_houlsby)

    def expected_params(self, vit: VisionTransformer) -> int:
        return bottleneck_params(vit, self.bottleneck)


@method("adapter_houlsby")
class AdapterHoulsby(_Adapter):
    """Adds a bottleneck adapter to the output of both branches, before the residual addition."""

    activation: Literal["gelu", "tanh gelu"] = later(default="gelu")
    """tanh gelu: GELU approximated by tanh, as in the authors' code."""
    title = "Adapter (Houlsby)"
    paper = Paper("ICML", 2019, "1902.00751", "google-research/adapter-bert")
    equation = r"x \leftarrow x + h + A(h),\quad h = f(\mathrm{LN}(x)),\ f \in \{\mathrm{Attn}, \mathrm{MLP}\}"
    targets = "after attention, after the MLP"
    evidence = "authors' module"
    differs = (
        "The release approximates GELU by tanh, as with `activation='tanh gelu'`. Exact GELU and the initialisation "
        "are those of Adapters Strike Back."
    )

    def make_activation(self) -> nn.Module:
        return nn.GELU("none" if self.activation == "gelu" else "tanh")

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            for branch in (1, 2):
                adapt_output(ref.block, branch, self.adapter(ref.width))

    def expected_params(self, vit: VisionTransformer) -> int:
        return 2 * super().expected_params(vit)


@method("adapter_pfeiffer")
class AdapterPfeiffer(_Adapter):
    """Adds a bottleneck adapter after each block, which reads the residual stream through its own LayerNorm.

    The LayerNorm is trained as well, which gives 175,200 parameters on ViT-B/16.  Tables that report 156,768 refer to
    `adapter_intermediate`.
    """

    form: Literal["norm", "released"] = later(default="norm")
    """norm: that of Adapters Strike Back.  released: ReLU and no LayerNorm, as in the authors' code for ViTs."""
    title = "Adapter (Pfeiffer)"
    paper = Paper("EACL", 2021, "2005.00247", "adapter-hub/adapters")
    equation = r"x \leftarrow \mathrm{Block}(x);\ x \leftarrow x + A(\mathrm{LN}_a(x))"
    targets = "after each block"
    evidence = "authors' module"
    differs = (
        "The release has ReLU and no LayerNorm of its own, as with `form='released'`. This form and the initialisation "
        "are those of Adapters Strike Back."
    )

    def make_activation(self) -> nn.Module:
        return nn.GELU() if self.form == "norm" else nn.ReLU()

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            adapter = self.adapter(ref.width)
            if self.form == "norm":
                adapter = nn.Sequential(nn.LayerNorm(ref.width, eps=1e-6), adapter)  # the eps of the ViT's norms
            ref.replace(nn.Sequential(ref.block, Residual(adapter)))

    def expected_params(self, vit: VisionTransformer) -> int:
        norms = sum(2 * ref.width for ref in blocks_of(vit)) if self.form == "norm" else 0
        return super().expected_params(vit) + norms


@method("adapter_intermediate")
class AdapterIntermediate(_Adapter):
    """Adds a bottleneck adapter to the output of the MLP branch, before the residual addition."""

    title = "Adapter (intermediate)"
    paper = ADAPTERS_STRIKE_BACK
    equation = r"x \leftarrow x + h + A(h),\quad h = \mathrm{MLP}(\mathrm{LN}(x))"
    targets = "after the MLP"

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            adapt_output(ref.block, 2, self.adapter(ref.width))


@method("adapter_pre")
class AdapterPre(_Adapter):
    """Adds a bottleneck adapter to the residual stream between the attention and the MLP branch."""

    title = "Adapter (pre)"
    paper = ADAPTERS_STRIKE_BACK
    equation = r"x \leftarrow x + A(x);\ x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x))"
    targets = "before the MLP branch"

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            attention, mlp = branches(ref.block)
            ref.replace(nn.Sequential(attention, Residual(self.adapter(ref.width)), mlp))


@method("adapter_parallel")
class AdapterParallel(_Adapter):
    """Adds a bottleneck adapter in parallel to the MLP branch, which reads the residual stream."""

    activation: Literal["gelu", "relu"] = later(default="gelu")
    """relu: as in the authors' code."""
    title = "Adapter (parallel)"
    paper = Paper("ICLR", 2022, "2110.04366", "jxhe/unify-parameter-efficient-tuning")
    equation = r"x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)) + A(x)"
    targets = "parallel to the MLP"
    evidence = "authors' module"
    differs = (
        "The release's activation is ReLU, as with `activation='relu'`, and its scaled form multiplies the adapter by "
        "4. GELU and the initialisation are those of Adapters Strike Back."
    )

    def make_activation(self) -> nn.Module:
        return nn.GELU() if self.activation == "gelu" else nn.ReLU()

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            attention, mlp = branches(ref.block)
            mlp.beside = ReadsResidual(self.adapter(ref.width))
            ref.replace(nn.Sequential(attention, mlp))


@method("adapter_plus")
class AdapterPlus(_Adapter):
    """Adds a bottleneck adapter with a trained scale per channel after each block."""

    title = "Adapter+"
    evidence = "authors' training"
    paper = ADAPTERS_STRIKE_BACK
    equation = r"x \leftarrow \mathrm{Block}(x);\ x \leftarrow x + s \odot A(x)"
    targets = "after each block"

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            scaled = nn.Sequential(self.adapter(ref.width), LayerScale(ref.width, 1.0))
            ref.replace(nn.Sequential(ref.block, Residual(scaled)))

    def expected_params(self, vit: VisionTransformer) -> int:
        return super().expected_params(vit) + sum(ref.width for ref in blocks_of(vit))


@method("adapter_noah")
class AdapterNOAH(Method):
    """Adds a QuickGELU bottleneck to the output of the MLP branch, as Neural Prompt Search does."""

    bottleneck: PositiveInt = 8
    start: Literal["xavier", "released"] = later(default="xavier")
    """xavier: the module's own initialisation.  released: what training starts from, because the model initialises all
    linear maps again (supernet_vision_transformer_timm.py:462,531,686-688)."""
    dropout: Rate = later(default=0.0)
    """Dropout between activation and up-projection; NOAH trains with 0.1."""
    title = "Adapter (NOAH)"
    paper = Paper("TPAMI", 2024, "2206.04673", "ZhangYuanhan-AI/NOAH")
    equation = r"x \leftarrow x + h + W_u\,\mathrm{QuickGELU}(W_d h + b_d) + b_u,\quad h = \mathrm{MLP}(\mathrm{LN}(x))"
    targets = "after the MLP"
    evidence = "authors' training"
    differs = (
        "The released supernet initialises all linear maps again and trains with dropout 0.1; `start='released'` "
        "and `dropout=0.1` do so."
    )
    search = {"bottleneck": (1, 5, 8, 10)}  # the widths of NOAH's search space, and that of its Adapter baseline
    starts_as_identity = False  # Xavier initialisation of both projections
    backbones = ("vit", "swin")

    def inject(self, vit: VisionTransformer) -> None:
        for ref in blocks_of(vit):
            activation = nn.Sequential(QuickGELU(), nn.Dropout(self.dropout)) if self.dropout else QuickGELU()
            adapter = Bottleneck(ref.width, self.bottleneck, activation)
            adapt_output(ref.block, 2, adapter.apply(init_noah if self.start == "xavier" else init_as_timm))

    def expected_params(self, vit: VisionTransformer) -> int:
        return bottleneck_params(vit, self.bottleneck)
