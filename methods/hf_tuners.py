"""Methods computed by Hugging Face peft, under their own names and with their papers' defaults."""

import math
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from .arguments import PositiveInt
from .base import Paper, method
from .hf_peft import FromPeft, tuned_layers
from .updates import site_shapes


@method("oft")
class OFT(FromPeft):
    """Rotates the inputs of each weight within blocks of features."""

    block: PositiveInt = 32
    exact: bool = False
    """True: rotations are exact Cayley transforms; False: five terms of its Neumann series, nearly orthogonal."""
    title = "OFT"
    paper = Paper("NeurIPS", 2023, "2306.07280", "Zeju1997/oft")
    equation = r"W' = W R^\top,\ R = \mathrm{diag}(R_k),\ R_k = I + 2Q_k + 2Q_k^2 + 2Q_k^3 + Q_k^4,\ Q_k^\top = -Q_k"
    evidence = "authors' module"
    differs = (
        "The release computes exact Cayley transforms, as `exact=True` does, and by default keeps rotations close to "
        "the identity (COFT)."
    )
    search = {"block": (16, 32, 64)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "oft", {"oft_block_size": self.block, "use_cayley_neumann": not self.exact}

    def inject(self, vit: VisionTransformer) -> None:
        for inputs, _ in site_shapes(vit, self.sites):
            if inputs % self.block:  # peft would silently use another size
                raise ValueError(f"block={self.block} does not divide the {inputs} inputs of a weight here")
        super().inject(vit)

    def update_params(self, inputs: int, outputs: int) -> int:
        return inputs // self.block * (self.block * (self.block - 1) // 2)


@method("boft")
class BOFT(FromPeft):
    """Rotates the inputs of each weight within small blocks, and scales its outputs.

    There is one butterfly factor, so rotations do not mix blocks.  peft always uses one if it cannot compile its CUDA
    code.
    """

    block: PositiveInt = 4
    title = "BOFT"
    paper = Paper("ICLR", 2024, "2311.06243", "wy1iu/butterfly-oft")
    equation = r"W' = s \odot (W R^\top),\ R = \mathrm{diag}((I - S_k)(I + S_k)^{-1}),\ S_k^\top = -S_k"
    evidence = "reference implementation"
    search = {"block": (4, 8, 16)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "boft", {"boft_block_size": self.block}

    def update_params(self, inputs: int, outputs: int) -> int:
        return inputs // self.block * self.block**2 + outputs  # peft stores whole blocks and uses their skew part


@method("hra")
class HRA(FromPeft):
    """Multiplies each weight by a chain of Householder reflections, initially in pairs that cancel."""

    rank: PositiveInt = 8
    """Number of reflections, even because of the pairs."""
    gram_schmidt: bool = False
    """Orthonormalise the vectors; they are then initialised without pairs, as equal vectors give 0/0."""
    title = "HRA"
    paper = Paper("NeurIPS", 2024, "2405.17484", "DaShenZi721/HRA")
    equation = r"W' = W \prod_{i=1}^{r} \left(I - 2 \frac{u_i u_i^\top}{\lVert u_i \rVert^2}\right)"
    evidence = "authors' module"
    differs = "The release for images reflects the inputs of a weight, as here; that for language models its outputs."
    search = {"rank": (4, 8, 16)}
    starts_as_identity = False  # equal up to rounding: each pair of reflections is multiplied out

    def validate(self) -> None:
        super().validate()
        if self.rank % 2:
            raise ValueError(f"rank must be even, not {self.rank}: initial reflections are pairs that cancel")

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "hra", {"r": self.rank, "apply_GS": self.gram_schmidt, "init_weights": not self.gram_schmidt}

    def update_params(self, inputs: int, outputs: int) -> int:
        return inputs * self.rank


@method("vera")
class VeRA(FromPeft):
    """Adds a frozen random low-rank product, shared by all layers, with trained scales per rank and per output.

    The random matrices do not depend on the run's seed (peft's `projection_prng_key`).
    """

    rank: PositiveInt = 256
    title = "VeRA"
    paper = Paper("ICLR", 2024, "2310.11454", "huggingface/peft")
    equation = r"W' = W + \mathrm{diag}(b)\, B\, \mathrm{diag}(d)\, A"
    evidence = "reference implementation"
    search = {"rank": (64, 256, 1024)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "vera", {"r": self.rank, "save_projection": False}

    def update_params(self, inputs: int, outputs: int) -> int:
        return outputs + self.rank


@method("randlora")
class RandLoRA(FromPeft):
    """Adds a full-rank sum of frozen random low-rank products, each scaled by trained diagonals.

    The random matrices do not depend on the run's seed (peft's `projection_prng_key`).  Like the release, peft
    flattens the two factors in different orders, so it pairs ranks with bases differently from the equation.
    """

    rank: PositiveInt = 32
    """Rank of one product; the number of products is the smaller side of the weight divided by it."""
    scale: float = 20.0  # peft/tuners/randlora/config.py: alpha is 20 times the rank
    title = "RandLoRA"
    paper = Paper("ICLR", 2025, "2502.00987", "PaulAlbert31/RandLoRA")
    equation = r"W' = W + s \sum_i B_i \Lambda_i A_i \Gamma_i"
    evidence = "authors' module"
    differs = (
        "In the release Γ starts at zero and Λ does not; here it is the reverse. If the rank divides the smaller side, "
        "the release adds one product more."
    )
    search = {"rank": (8, 32)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "randlora", {"r": self.rank, "randlora_alpha": self.scale * self.rank, "save_projection": False}

    def update_params(self, inputs: int, outputs: int) -> int:
        side = min(inputs, outputs)
        return math.ceil(side / self.rank) * (self.rank + side)


@method("loha")
class LoHa(FromPeft):
    """Adds the elementwise product of two low-rank products to each weight, as FedPara does (arXiv:2108.06098)."""

    rank: PositiveInt = 8
    alpha: float = 8.0
    title = "LoHa"
    paper = Paper("ICLR", 2024, "2309.14859", "KohakuBlueleaf/LyCORIS")
    equation = r"W' = W + \tfrac{\alpha}{r} (B_1 A_1) \odot (B_2 A_2)"
    evidence = "authors' module"
    differs = (
        "The release draws factors from N(0, 0.1) and N(0, 1), peft from Kaiming's uniform distribution; one factor of "
        "the second product starts at zero in both."
    )
    search = {"rank": (4, 8, 16)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "loha", {"r": self.rank, "alpha": self.alpha}

    def update_params(self, inputs: int, outputs: int) -> int:
        return 2 * self.rank * (inputs + outputs)


@method("lokr")
class LoKr(FromPeft):
    """Adds the Kronecker product of a small matrix and a low-rank product to each weight.

    Each side of the weight is the product of two factors that are as equal as possible: 768 = 24 * 32.  If the rank is
    at least half the larger factors, the second matrix is dense.
    """

    rank: PositiveInt = 8
    alpha: float = 8.0
    title = "LoKr"
    paper = Paper("ICLR", 2024, "2309.14859", "KohakuBlueleaf/LyCORIS")
    equation = r"W' = W + \tfrac{\alpha}{r}\, C \otimes (B A)"
    evidence = "authors' module"
    differs = (
        "The release starts the low-rank product at zero, peft the small matrix C. With two dense matrices the release "
        "ignores α."
    )
    search = {"rank": (4, 8, 16)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "lokr", {"r": self.rank, "alpha": self.alpha}

    def update_params(self, inputs: int, outputs: int) -> int:
        small = [max(f for f in range(1, math.isqrt(side) + 1) if side % f == 0) for side in (inputs, outputs)]
        rows, columns = outputs // small[1], inputs // small[0]
        dense = self.rank >= max(rows, columns) / 2
        return small[0] * small[1] + (rows * columns if dense else self.rank * (rows + columns))


FOURIER_WIDTH = 768
"""The width of ViT-B, to which the authors' hyper-parameters of FourierFT belong."""


@method("fourierft")
class FourierFT(FromPeft):
    """Adds to each weight the inverse Fourier transform of a few trained coefficients at random positions.

    The positions are the same in every layer and do not depend on the run's seed (peft's `random_loc_seed`).  The
    authors initialise coefficients with N(0, 1) and give them a separate learning rate.  Ours are initially zero and
    multiplied by `rate` (ρ).  AdamW's step does not depend on the gradient's size, so coefficients learn as if at
    `rate` times the recipe's learning rate, and the head at the recipe's.  Only weight decay stays that of the recipe.
    At such rates a random initialisation is forgotten within a few steps.

    The authors' numbers are for a width of 768.  At other widths (ours) the scale is proportional to the size of the
    weight, so that a step changes it by the same fraction: a coefficient's contribution has the norm scale / width, and
    a weight's norm grows with its width.  Without this, steps on `toy_vit` (width 128) would be 36 times too large.
    """

    coefficients: PositiveInt = 1000
    """Trained coefficients per weight; the authors' scripts for ViTs set 3000."""
    scale: float = 300.0  # for ViTs: experiments/ViT/*.bash of the official code, and peft/tuners/fourierft/config.py
    rate: float = 200.0
    """Turns the recipe's 1e-3 into 2e-1, as in experiments/ViT/cifar100-base-3000.bash.  The scripts there set 2e-1 to
    3e-1, 250 to 300 times the learning rate of the head."""
    title = "FourierFT"
    paper = Paper("ICML", 2024, "2405.03003", "Chaos96/fourierft")
    equation = (
        r"W' = W + \alpha \rho\, \tfrac{d^2}{768^2}\, \mathrm{Re}\, F^{-1}(c \text{ at } n \text{ random places})"
    )
    evidence = "authors' module"
    differs = "In the release coefficients start at N(0, 1) and have a learning rate of their own."
    version = 2  # version 1 was initialised with N(0, 1) and learned at the recipe's rate
    search = {"coefficients": (1000, 3000), "rate": (20.0, 200.0)}  # ours

    def tuner(self) -> tuple[str, dict[str, Any]]:
        options = {"n_frequency": self.coefficients, "scaling": self.scale * self.rate}
        return "fourierft", {**options, "init_weights": True}  # zeros

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        for layer in tuned_layers(vit).values():
            layer.fourierft_scaling["default"] *= layer.in_features * layer.out_features / FOURIER_WIDTH**2

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.coefficients


@method("ia3")
class IA3(FromPeft):
    """Scales the channels of keys, values and the hidden features of the MLP."""

    sites: str = "kv,fc2"
    title = "(IA)³"
    paper = Paper("NeurIPS", 2022, "2205.05638", "r-three/t-few")
    equation = r"k \leftarrow l_k \odot k,\ v \leftarrow l_v \odot v,\ h_{fc2} \leftarrow l_{ff} \odot h_{fc2}"
    evidence = "authors' module"
    targets = "k, v, inputs of fc2"

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "ia3", {"feedforward_modules": r".*mlp\.fc2"}  # scales their inputs, and the outputs of the others

    def update_params(self, inputs: int, outputs: int) -> int:
        return max(inputs, outputs)  # the hidden width in the MLP
