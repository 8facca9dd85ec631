"""Low-rank updates computed by Hugging Face peft, under their own names.

Defaults are peft's where nothing else is said.  In the equations B A is the product of factors A: [rank, in] and
B: [out, rank] that are trained unless said otherwise.
"""

from typing import Any, Literal

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Paper, later, method
from .bounded import BoundedUpdate
from .hf_peft import FromPeft, tuned_layers
from .updates import merge_linears, update_linears

DIFFERS = "peft computes it, whose code was not compared with the authors'"


def leave_out_buffers(vit: nn.Module) -> None:
    """Leave peft's buffers out of adapters, as they follow from the pretrained weights and fixed seeds."""
    for layer in tuned_layers(vit).values():
        for module in layer.modules():
            module._non_persistent_buffers_set.update(name for name, _ in module.named_buffers(recurse=False))


@method("miss")
class MiSS(FromPeft):
    """Adds one trained matrix to each group of `rank` columns of a weight: inputs are summed over groups first."""

    rank: PositiveInt = 16
    """Columns in a group; peft's 64 is for language models."""
    title = "MiSS"
    paper = Paper("ICLR", 2026, "2409.15371", "JL-er/RWKV-PEFT")  # JL-er/MiSS holds scripts that call peft
    equation = r"W' = W + (D\ D \cdots D),\ D \in \mathbb{R}^{out \times r}"
    evidence = "authors' module"
    differs = "The rank is ours: 16 has as many parameters as LoRA of rank 8."
    search = {"rank": (8, 16, 32)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "miss", {"r": self.rank}

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * outputs


@method("gralora")
class GraLoRA(FromPeft):
    """Divides each weight into blocks, with a low-rank product of its own for each block."""

    rank: PositiveInt = 8
    """Sum of the ranks of the blocks in a row; the rank of one block is this divided by `parts`."""
    alpha: float = 16.0
    parts: PositiveInt = 2
    """Blocks per side of a weight."""
    title = "GraLoRA"
    paper = Paper("NeurIPS", 2025, "2505.20355", "SqueezeBits/GraLoRA")
    equation = r"W'_{ij} = W_{ij} + \tfrac{\alpha}{r} B_{ij} A_{ij}"
    evidence = "authors' module"
    differs = "The rank is that of `lora`; α / r = 2 and two parts are peft's."
    search = {"rank": (4, 8, 16), "parts": (2, 4)}

    def validate(self) -> None:
        super().validate()
        if self.rank % self.parts:
            raise ValueError(f"parts={self.parts} must divide rank={self.rank}")

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "gralora", {"r": self.rank, "alpha": self.alpha, "gralora_k": self.parts}

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs)


@method("hira")
class HiRA(FromPeft):
    """Multiplies each weight elementwise by a low-rank product, so that the update has a high rank."""

    rank: PositiveInt = 32
    title = "HiRA"
    paper = Paper("ICLR", 2025, code="hqsiswiliam/hira")
    equation = r"W' = W + W \odot (B A)"
    evidence = "authors' module"
    search = {"rank": (8, 32)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "hira", {"r": self.rank}

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs)


@method("delora")
class DeLoRA(FromPeft):
    """Adds a low-rank product of normalised vectors, whose length one trained number per weight bounds."""

    rank: PositiveInt = 8
    strength: float = 15.0
    """Initial value of λ, which is trained."""
    start: Literal["zeros", "released"] = later(default="zeros")
    """zeros: initially B = 0, as in peft.  released: both factors start at random, and the same term with their initial
    values is subtracted, as in the authors' code; adapters then hold the initial factors too."""
    title = "DeLoRA"
    paper = Paper("ICLR", 2025, "2503.18225", "ExplainableML/DeLoRA")
    equation = (
        r"W' = W + \tfrac{\lambda}{r} \sum_i \frac{b_i a_i^\top}{\lVert b_i \rVert \lVert a_i \rVert}"
        r"\, \mathrm{diag}(\lVert W_{:j} \rVert)"
    )
    evidence = "authors' module"
    differs = (
        "The release starts both factors at random and subtracts the same term with their initial values, as with "
        "`start='released'`; this is peft's form, in which B starts at zero."
    )
    search = {"rank": (4, 8, 16), "strength": (5.0, 15.0)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "delora", {"r": self.rank, "delora_lambda": self.strength}

    def make_update(self, weight: Tensor, bias: Tensor | None) -> BoundedUpdate:
        return BoundedUpdate(weight, self.rank, self.strength)

    def inject(self, vit: VisionTransformer) -> None:
        if self.start == "released":
            update_linears(vit, self.sites, self.make_update)
        else:
            super().inject(vit)
            leave_out_buffers(vit)

    def merge(self, vit: VisionTransformer) -> None:
        if self.start == "released":
            merge_linears(vit)
        else:
            super().merge(vit)

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs) + 1


@method("deft")
class DEFT(FromPeft):
    """Removes a trained low-rank subspace from the outputs of each weight and puts a trained map in its place."""

    rank: PositiveInt = 8
    title = "DEFT"
    paper = Paper("NeurIPS", 2025, "2509.22793", "MAXNORM8650/DEFT")
    equation = r"W' = W - P\, \mathrm{relu}(P)^\top W + P R"
    evidence = "authors' module"
    differs = (
        "The release orthogonalises P by default, and starts R at random; this is its other form, started at the "
        "pretrained weight. peft computes in float32."
    )
    search = {"rank": (4, 8, 16)}
    starts_as_identity = False  # R is initially relu(P)' W: equal up to rounding

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "deft", {"r": self.rank}

    def update_params(self, inputs: int, outputs: int) -> int:
        return min(self.rank, outputs) * (inputs + outputs)  # peft lowers the rank to the number of outputs


@method("peanut")
class PEANuT(FromPeft):
    """Computes the update of each weight from the weight itself, by a small network."""

    rank: PositiveInt = 32
    layers: int = 0
    """Pairs of hidden layers with residual connections (peft's `depth`)."""
    title = "PEANuT"
    paper = Paper("arXiv", 2024, "2410.01870", "yibozhong/peanut")
    equation = r"\Delta W^\top = \mathrm{relu}(W^\top A^\top) B^\top"
    evidence = "authors' module"
    search = {"rank": (8, 32), "layers": (0, 1)}

    def validate(self) -> None:
        super().validate()
        if self.layers < 0:
            raise ValueError(f"layers must be at least 0, not {self.layers}")

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "peanut", {"r": self.rank, "depth": self.layers}

    def update_params(self, inputs: int, outputs: int) -> int:
        return 2 * self.rank * (outputs + self.layers * self.rank)


@method("vblora")
class VBLoRA(FromPeft):
    """Composes the factors of low-rank products from a bank of vectors that all weights share.

    Each piece of a factor is a weighted sum of the `k` vectors with the largest logits.
    """

    rank: PositiveInt = 4
    vectors: PositiveInt = 64
    """Vectors in the bank."""
    length: PositiveInt = 32
    """Length of a vector; it divides inputs and outputs of each weight."""
    k: PositiveInt = 2
    title = "VB-LoRA"
    paper = Paper("NeurIPS", 2024, "2405.15179", "leo-yangli/VB-LoRA")
    equation = (
        r"W' = W + B A,\ \text{pieces } \textstyle\sum_{i \in \mathrm{top}_k(l)} \mathrm{softmax}(l)_i v_i,\ "
        r"v \text{ shared}"
    )
    evidence = "authors' module"
    differs = (
        "The release starts logits at N(0, 0.01), peft at N(0, 0.1). The bank is ours: peft's 256 vectors of length "
        "256 fit no width that is not a multiple of 256."
    )
    search = {"rank": (4, 8), "vectors": (64, 256)}
    starts_as_identity = False

    def validate(self) -> None:
        super().validate()
        if self.k > self.vectors:
            raise ValueError(f"k={self.k} must not exceed vectors={self.vectors}")

    def tuner(self) -> tuple[str, dict[str, Any]]:
        bank = {"num_vectors": self.vectors, "vector_length": self.length}
        return "vblora", {"r": self.rank, "topk": self.k, **bank}

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs) // self.length * self.vectors

    def expected_params(self, vit: VisionTransformer) -> int:
        return super().expected_params(vit) + self.vectors * self.length


@method("unilora")
class UniLoRA(FromPeft):
    """Fills the factors of all low-rank products with the entries of one trained vector, at random places.

    An entry is divided by the square root of the number of its places.  The places do not depend on the run's seed
    (peft's `proj_seed`).
    """

    rank: PositiveInt = 4
    length: PositiveInt = 256
    """Length of the trained vector, which is all that is trained."""
    title = "Uni-LoRA"
    paper = Paper("NeurIPS", 2025, "2506.00799", "KaiyangLi1992/Uni-LoRA")
    equation = r"W' = W + B A,\ (A, B)_i = \theta_{p(i)} / \sqrt{n_{p(i)}}"
    evidence = "authors' module"
    differs = "The length is peft's; the paper trains more."
    search = {"length": (256, 4096)}
    starts_as_identity = False

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "unilora", {"r": self.rank, "theta_d_length": self.length}

    def update_params(self, inputs: int, outputs: int) -> int:
        return 0

    def expected_params(self, vit: VisionTransformer) -> int:
        return self.length


@method("tinylora")
class TinyLoRA(FromPeft):
    """Trains a short vector per weight, which mixes fixed random matrices between the first singular vectors.

    The random matrices do not depend on the run's seed (peft's `projection_seed`).
    """

    rank: PositiveInt = 2
    length: PositiveInt = 64
    """Length of the trained vector."""
    title = "TinyLoRA"
    paper = Paper("arXiv", 2026, "2602.04118")
    equation = r"W' = W + U \Sigma^{1/2} \left(\textstyle\sum_i v_i P_i\right) \Sigma^{1/2} V^\top,\ P_i \text{ random}"
    evidence = "reference implementation"
    differs = f"{DIFFERS}."
    search = {"rank": (2, 8), "length": (16, 64)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "tinylora", {"r": self.rank, "u": self.length}

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        leave_out_buffers(vit)

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.length


@method("pvera")
class PVeRA(FromPeft):
    """Draws the hidden features of VeRA from normal distributions in training, and uses their means afterwards.

    The random matrices A: [2 rank, in] and B do not depend on the run's seed (peft's `projection_prng_key`).
    """

    rank: PositiveInt = 256
    title = "PVeRA"
    paper = Paper("WACV", 2026, "2512.07703", "leofillioux/pvera")
    equation = (
        r"\Delta y = b \odot B (\mu + \epsilon \odot e^{\nu / 2}),\ (\mu, \nu) = d \odot A x,\ \epsilon \sim N(0, I)"
    )
    evidence = "authors' module"
    differs = (
        "The release adds a Kullback-Leibler divergence to the loss, draws random matrices for query and value "
        "separately and of another scale, and starts d at one random number."
    )
    search = {"rank": (64, 256, 1024)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "pvera", {"r": self.rank, "save_projection": False}

    def update_params(self, inputs: int, outputs: int) -> int:
        return outputs + 2 * self.rank
