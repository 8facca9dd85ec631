"""One bottleneck adapter, A(h) = W_u GELU(W_d h + b_d) + b_u, in the places that the literature puts it.

Places, initialisation and regularisation are those of visinf/adapter_plus (adapter_plus/vit_adapter.py, conf/adapter/),
which compares them on ViTs; the papers named are where a place comes from, mostly language models.  At the end stands
the adapter of NOAH: in the place of `adapter_intermediate`, with another activation and start.
"""

from dataclasses import dataclass

from timm.layers.activations import QuickGELU
from timm.layers.drop import DropPath
from timm.layers.layer_scale import LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of
from .base import Method, Paper, register, require_positive
from .blocks import Residual, branches

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
    """The parallel adapter that reads the residual stream: (x, h) -> adapter(x)."""

    def __init__(self, adapter: nn.Module) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # [b, n, d]
        return self.adapter(x)


def houlsby_start(module: nn.Module) -> None:
    """Nearly zero, yet no projection exactly so: were both zero, neither would ever get a gradient."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.01, a=-0.02, b=0.02)  # vit_adapter.py:52-62
        nn.init.zeros_(module.bias)


def noah_start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)  # NOAH model/module/adapter_super.py:37-42
        nn.init.normal_(module.bias, std=1e-6)


def adapt_output(block: nn.Module, branch: int, adapter: nn.Module) -> None:
    """Let h -> h + adapter(h) act on what branch 1 (attention) or 2 (MLP) of `block` is about to add."""
    name = f"drop_path{branch}"  # the last of a branch; both repositories adapt what drop path left of it
    setattr(block, name, nn.Sequential(block.get_submodule(name), Residual(adapter)))


def bottleneck_params(vit: VisionTransformer, bottleneck: int) -> int:
    """One adapter with biases in each block."""
    return sum(2 * place.width * bottleneck + bottleneck + place.width for place in blocks_of(vit))


@dataclass(frozen=True)
class _Adapter(Method):
    bottleneck: int = 8
    drop_path: float = 0.1
    """Rate at which an image goes without an adapter in training (conf/adapter/base_adapter.yaml)."""
    evidence = "golden"
    search = {"bottleneck": (1, 2, 4, 8, 16, 32)}  # conf/experiment/vtab/adapter_plus_dim1-32.yaml
    starts_as_identity = False  # `houlsby_start` is only nearly zero
    backbones = ("vit", "swin")

    def __post_init__(self) -> None:
        require_positive(bottleneck=self.bottleneck)
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be at least 0 and below 1, not {self.drop_path}")

    def adapter(self, width: int) -> nn.Module:
        return Bottleneck(width, self.bottleneck, nn.GELU(), self.drop_path).apply(houlsby_start)

    def expected_params(self, vit: VisionTransformer) -> int:
        return bottleneck_params(vit, self.bottleneck)


@register("adapter_houlsby")
@dataclass(frozen=True)
class AdapterHoulsby(_Adapter):
    """A bottleneck on the output of both branches, before it is added."""

    title = "Adapter (Houlsby)"
    paper = Paper("ICML", 2019, "1902.00751", "google-research/adapter-bert")
    equation = r"x \leftarrow x + h + A(h),\quad h = f(\mathrm{LN}(x)),\ f \in \{\mathrm{Attn}, \mathrm{MLP}\}"
    places = "after attention, after the MLP"

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            for branch in (1, 2):
                adapt_output(place.block, branch, self.adapter(place.width))

    def expected_params(self, vit: VisionTransformer) -> int:
        return 2 * super().expected_params(vit)


@register("adapter_pfeiffer")
@dataclass(frozen=True)
class AdapterPfeiffer(_Adapter):
    """A bottleneck after each block, which reads the residual stream through a LayerNorm of its own.

    The LayerNorm's parameters count too: 175,200 on ViT-B/16.  Tables with 156,768 mean `adapter_intermediate`.
    """

    title = "Adapter (Pfeiffer)"
    paper = Paper("EACL", 2021, "2005.00247", "adapter-hub/adapters")
    equation = r"x \leftarrow \mathrm{Block}(x);\ x \leftarrow x + A(\mathrm{LN}_a(x))"
    places = "after each block"

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            norm = nn.LayerNorm(place.width, eps=1e-6)  # the eps of the ViT's own norms
            place.replace(nn.Sequential(place.block, Residual(nn.Sequential(norm, self.adapter(place.width)))))

    def expected_params(self, vit: VisionTransformer) -> int:
        return super().expected_params(vit) + sum(2 * place.width for place in blocks_of(vit))


@register("adapter_intermediate")
@dataclass(frozen=True)
class AdapterIntermediate(_Adapter):
    """A bottleneck on the output of the MLP branch, before it is added."""

    title = "Adapter (intermediate)"
    paper = ADAPTERS_STRIKE_BACK
    equation = r"x \leftarrow x + h + A(h),\quad h = \mathrm{MLP}(\mathrm{LN}(x))"
    places = "after the MLP"

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            adapt_output(place.block, 2, self.adapter(place.width))


@register("adapter_pre")
@dataclass(frozen=True)
class AdapterPre(_Adapter):
    """A bottleneck on the residual stream between the attention and the MLP branch."""

    title = "Adapter (pre)"
    paper = ADAPTERS_STRIKE_BACK
    equation = r"x \leftarrow x + A(x);\ x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x))"
    places = "before the MLP branch"

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            attention, mlp = branches(place.block)
            place.replace(nn.Sequential(attention, Residual(self.adapter(place.width)), mlp))


@register("adapter_parallel")
@dataclass(frozen=True)
class AdapterParallel(_Adapter):
    """A bottleneck in parallel with the MLP branch, on the residual stream."""

    title = "Adapter (parallel)"
    paper = Paper("ICLR", 2022, "2110.04366", "jxhe/unify-parameter-efficient-tuning")
    equation = r"x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)) + A(x)"
    places = "beside the MLP"

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            attention, mlp = branches(place.block)
            mlp.beside = ReadsResidual(self.adapter(place.width))
            place.replace(nn.Sequential(attention, mlp))


@register("adapter_plus")
@dataclass(frozen=True)
class AdapterPlus(_Adapter):
    """A bottleneck with a learned scale per channel after each block."""

    title = "Adapter+"
    paper = ADAPTERS_STRIKE_BACK
    equation = r"x \leftarrow \mathrm{Block}(x);\ x \leftarrow x + s \odot A(x)"
    places = "after each block"

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            scaled = nn.Sequential(self.adapter(place.width), LayerScale(place.width, 1.0))
            place.replace(nn.Sequential(place.block, Residual(scaled)))

    def expected_params(self, vit: VisionTransformer) -> int:
        return super().expected_params(vit) + sum(place.width for place in blocks_of(vit))


@register("adapter_noah")
@dataclass(frozen=True)
class AdapterNOAH(Method):
    """A QuickGELU bottleneck on the output of the MLP branch, the adapter of Neural Prompt Search."""

    bottleneck: int = 8
    title = "Adapter (NOAH)"
    paper = Paper("TPAMI", 2024, "2206.04673", "ZhangYuanhan-AI/NOAH")
    equation = r"x \leftarrow x + h + W_u\,\mathrm{QuickGELU}(W_d h + b_d) + b_u,\quad h = \mathrm{MLP}(\mathrm{LN}(x))"
    places = "after the MLP"
    evidence = "golden"
    search = {"bottleneck": (1, 5, 8, 10)}  # the widths that NOAH searches among, and that of its Adapter baseline
    starts_as_identity = False  # Xavier on both projections
    backbones = ("vit", "swin")

    def __post_init__(self) -> None:
        require_positive(bottleneck=self.bottleneck)

    def inject(self, vit: VisionTransformer) -> None:
        for place in blocks_of(vit):
            adapt_output(place.block, 2, Bottleneck(place.width, self.bottleneck, QuickGELU()).apply(noah_start))

    def expected_params(self, vit: VisionTransformer) -> int:
        return bottleneck_params(vit, self.bottleneck)
