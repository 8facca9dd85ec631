"""Methods that Hugging Face peft computes, by their names and with their papers' defaults."""

import math
from dataclasses import dataclass
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from .base import Paper, register
from .hf_peft import FromPeft, tuned_layers
from .updates import site_shapes


@register("oft")
@dataclass(frozen=True)
class OFT(FromPeft):
    """The inputs of each weight are rotated, block by block."""

    block: int = 32
    exact: bool = False
    """Whether a rotation is the Cayley transform itself, and not five terms of a series that is nearly orthogonal."""
    title = "OFT"
    paper = Paper("NeurIPS", 2023, "2306.07280", "Zeju1997/oft")
    equation = r"W' = W R^\top,\ R = \mathrm{diag}(R_k),\ R_k = I + 2Q_k + 2Q_k^2 + 2Q_k^3 + Q_k^4,\ Q_k^\top = -Q_k"
    search = {"block": (16, 32, 64)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "oft", {"oft_block_size": self.block, "use_cayley_neumann": not self.exact}

    def inject(self, vit: VisionTransformer) -> None:
        for inputs, _ in site_shapes(vit, self.sites):
            if inputs % self.block:  # peft would take another size
                raise ValueError(f"block={self.block} does not divide the {inputs} inputs of a weight here")
        super().inject(vit)

    def expected_params(self, vit: VisionTransformer) -> int:
        angles = self.block * (self.block - 1) // 2
        return sum(inputs // self.block * angles for inputs, _ in site_shapes(vit, self.sites))


@register("boft")
@dataclass(frozen=True)
class BOFT(FromPeft):
    """The inputs of each weight are rotated in small blocks, and its outputs scaled.

    One butterfly factor, which is what peft computes, whatever is asked for, where it cannot compile its CUDA code.
    With it the rotation stays within the blocks.
    """

    block: int = 4
    title = "BOFT"
    paper = Paper("ICLR", 2024, "2311.06243", "wy1iu/butterfly-oft")
    equation = r"W' = s \odot (W R^\top),\ R = \mathrm{diag}((I - S_k)(I + S_k)^{-1}),\ S_k^\top = -S_k"
    search = {"block": (4, 8, 16)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "boft", {"boft_block_size": self.block}

    def expected_params(self, vit: VisionTransformer) -> int:
        shapes = site_shapes(vit, self.sites)  # a block is stored whole, though only its skew part counts
        return sum(inputs // self.block * self.block**2 + outputs for inputs, outputs in shapes)


@register("hra")
@dataclass(frozen=True)
class HRA(FromPeft):
    """The inputs of each weight pass a chain of Householder reflections, which start as pairs that cancel."""

    rank: int = 8
    """Reflections; even, for the pairs."""
    gram_schmidt: bool = False
    """Reflect through one subspace of orthonormal vectors; these start unpaired, as equal vectors span none (0/0)."""
    title = "HRA"
    paper = Paper("NeurIPS", 2024, "2405.17484", "DaShenZi721/HRA")
    equation = r"W' = W \prod_{i=1}^{r} \left(I - 2 \frac{u_i u_i^\top}{\lVert u_i \rVert^2}\right)"
    search = {"rank": (4, 8, 16)}
    starts_as_identity = False  # up to rounding: each pair of reflections is multiplied out

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank % 2:
            raise ValueError(f"rank must be even, not {self.rank}: reflections start in pairs that cancel")

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "hra", {"r": self.rank, "apply_GS": self.gram_schmidt, "init_weights": not self.gram_schmidt}

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(inputs * self.rank for inputs, _ in site_shapes(vit, self.sites))


@register("vera")
@dataclass(frozen=True)
class VeRA(FromPeft):
    """Two random matrices that all layers share, frozen; each weight learns a scale for every rank and output.

    The random matrices are the same in every run, whatever its seed (peft's `projection_prng_key`).
    """

    rank: int = 256
    title = "VeRA"
    paper = Paper("ICLR", 2024, "2310.11454", "huggingface/peft")
    equation = r"W' = W + \mathrm{diag}(b)\, B\, \mathrm{diag}(d)\, A"
    search = {"rank": (64, 256, 1024)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "vera", {"r": self.rank, "save_projection": False}

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(outputs + self.rank for _, outputs in site_shapes(vit, self.sites))


@register("randlora")
@dataclass(frozen=True)
class RandLoRA(FromPeft):
    """A sum of as many frozen random low-rank products as make full rank, each scaled by learned diagonals.

    The random matrices are the same in every run, whatever its seed (peft's `projection_prng_key`).  peft flattens the
    two factors in different orders, so that it pairs ranks with bases otherwise than the equation.
    """

    rank: int = 32
    """Of one product; their number is the smaller side of the weight divided by it."""
    scale: float = 20.0  # peft/tuners/randlora/config.py: alpha is 20 times the rank
    title = "RandLoRA"
    paper = Paper("ICLR", 2025, "2502.00987", "PaulAlbert31/RandLoRA")
    equation = r"W' = W + s \sum_i B_i \Lambda_i A_i \Gamma_i"
    search = {"rank": (8, 32)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "randlora", {"r": self.rank, "randlora_alpha": self.scale * self.rank, "save_projection": False}

    def expected_params(self, vit: VisionTransformer) -> int:
        smaller = [min(shape) for shape in site_shapes(vit, self.sites)]
        return sum(math.ceil(side / self.rank) * (self.rank + side) for side in smaller)


@register("loha")
@dataclass(frozen=True)
class LoHa(FromPeft):
    """The elementwise product of two low-rank products is added to each weight, as in FedPara (arXiv:2108.06098)."""

    rank: int = 8
    alpha: float = 8.0
    title = "LoHa"
    paper = Paper("ICLR", 2024, "2309.14859", "KohakuBlueleaf/LyCORIS")
    equation = r"W' = W + \tfrac{\alpha}{r} (B_1 A_1) \odot (B_2 A_2)"
    search = {"rank": (4, 8, 16)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "loha", {"r": self.rank, "alpha": self.alpha}

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(2 * self.rank * (inputs + outputs) for inputs, outputs in site_shapes(vit, self.sites))


@register("lokr")
@dataclass(frozen=True)
class LoKr(FromPeft):
    """The Kronecker product of a small matrix and a low-rank product is added to each weight.

    Each side of the weight is cut into two factors, as equal as can be: 768 into 24 and 32.  At a rank of half the
    larger ones the second matrix is whole.
    """

    rank: int = 8
    alpha: float = 8.0
    title = "LoKr"
    paper = Paper("ICLR", 2024, "2309.14859", "KohakuBlueleaf/LyCORIS")
    equation = r"W' = W + \tfrac{\alpha}{r}\, C \otimes (B A)"
    search = {"rank": (4, 8, 16)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "lokr", {"r": self.rank, "alpha": self.alpha}

    def expected_params(self, vit: VisionTransformer) -> int:
        total = 0
        for shape in site_shapes(vit, self.sites):
            small = [max(factor for factor in range(1, math.isqrt(side) + 1) if side % factor == 0) for side in shape]
            inputs, outputs = (side // factor for side, factor in zip(shape, small, strict=True))
            whole = self.rank >= max(inputs, outputs) / 2
            total += small[0] * small[1] + (inputs * outputs if whole else self.rank * (inputs + outputs))
        return total


FOURIER_WIDTH = 768
"""Of ViT-B, which the authors' numbers for FourierFT are for."""


@register("fourierft")
@dataclass(frozen=True)
class FourierFT(FromPeft):
    """A few learned Fourier coefficients, at random places, are transformed back and added to each weight.

    The places are the same in every layer and run, whatever the run's seed (peft's `random_loc_seed`).  The authors'
    coefficients start at N(0, 1) and have a learning rate of their own.  Ours start at zero and count `rate` (ρ) times
    as much.  AdamW takes the same step whatever the size of a gradient, so that they learn as at `rate` times the
    recipe's learning rate, beside a head at the recipe's; only weight decay acts as without.  At such rates the random
    start is forgotten within a few steps.

    The authors' numbers are for a width of 768.  Elsewhere (ours) the scale goes with the size of the weight, so that a
    step moves the same share of it: the norm of what a coefficient adds is scale / width, that of a weight grows as
    its width.  Without that `toy_vit`, 128 wide, takes steps 36 times too long.
    """

    coefficients: int = 1000
    """Of each weight; the authors' scripts for ViTs have 3000."""
    scale: float = 300.0  # for ViTs: experiments/ViT/*.bash of the official code, and peft/tuners/fourierft/config.py
    rate: float = 200.0
    """Makes 2e-1 of the recipe's 1e-3, as experiments/ViT/cifar100-base-3000.bash has.  The scripts there have 2e-1 to
    3e-1, 250 to 300 times the rate of the head."""
    title = "FourierFT"
    paper = Paper("ICML", 2024, "2405.03003", "Chaos96/fourierft")
    equation = (
        r"W' = W + \alpha \rho\, \tfrac{d^2}{768^2}\, \mathrm{Re}\, F^{-1}(c \text{ at } n \text{ random places})"
    )
    version = 2  # 1 started at N(0, 1) and learned at the recipe's rate
    search = {"coefficients": (1000, 3000), "rate": (20.0, 200.0)}  # ours

    def tuner(self) -> tuple[str, dict[str, Any]]:
        options = {"n_frequency": self.coefficients, "scaling": self.scale * self.rate}
        return "fourierft", {**options, "init_weights": True}  # zeros

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        for layer in tuned_layers(vit).values():
            layer.fourierft_scaling["default"] *= layer.in_features * layer.out_features / FOURIER_WIDTH**2

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(self.coefficients for _ in site_shapes(vit, self.sites))


@register("ia3")
@dataclass(frozen=True)
class IA3(FromPeft):
    """Keys, values and what the MLP's second map reads are scaled, channel by channel."""

    sites: str = "kv,fc2"
    title = "(IA)³"
    paper = Paper("NeurIPS", 2022, "2205.05638", "r-three/t-few")
    equation = r"k \leftarrow l_k \odot k,\ v \leftarrow l_v \odot v,\ h_{fc2} \leftarrow l_{ff} \odot h_{fc2}"
    places = "k, v, inputs of fc2"

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "ia3", {"feedforward_modules": r".*mlp\.fc2"}  # of these the inputs are scaled, of others the outputs

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(max(shape) for shape in site_shapes(vit, self.sites))  # the inner width in the MLP
