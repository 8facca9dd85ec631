"""Rotations and sparse or circulant updates computed by Hugging Face peft, under their own names.

Defaults are peft's where nothing else is said.
"""

from typing import Any, Literal

from .arguments import PositiveInt
from .base import Paper, method
from .hf_low_rank import DIFFERS
from .hf_peft import FromPeft


@method("road")
class RoAd(FromPeft):
    """Rotates and scales pairs of outputs of each weight."""

    variant: Literal[1, 2, 4] = 1
    """Trained angles and scales of a pair: one for both outputs, one for each, or one for each of the four products."""
    group: PositiveInt = 32
    """The outputs i and i + group / 2 of a group form a pair; the number must divide the outputs."""
    title = "RoAd"
    paper = Paper("NeurIPS", 2024, "2409.00119", "BaohaoLiao/road")
    equation = (
        r"\begin{pmatrix} y_i \\ y_j \end{pmatrix} \leftarrow \alpha \begin{pmatrix} \cos\theta & -\sin\theta \\"
        r" \sin\theta & \cos\theta \end{pmatrix} \begin{pmatrix} y_i \\ y_j \end{pmatrix}"
    )
    evidence = "reference implementation"
    differs = f"{DIFFERS}. The group is ours, as peft's 64 does not divide every width."
    search = {"variant": (1, 2, 4)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "road", {"variant": f"road_{self.variant}", "group_size": self.group}

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.variant * outputs


@method("psoft")
class PSOFT(FromPeft):
    """Rotates the principal subspace of each weight, with trained scales before and after the rotation."""

    rank: PositiveInt = 32
    """Dimension of the subspace."""
    title = "PSOFT"
    paper = Paper("ICLR", 2026, "2505.11235", "fei407/PSOFT")
    equation = (
        r"W' = W + U_r \Sigma_r (\mathrm{diag}(b)\, R\, \mathrm{diag}(a) - I) V_r^\top,\ R = (I + Q)(I - Q)^{-1},\ "
        r"Q^\top = -Q"
    )
    evidence = "authors' module"
    differs = "The release approximates the rotation by five terms of a Neumann series by default; here it is exact."
    search = {"rank": (16, 32, 64)}

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "psoft", {"r": self.rank}

    def update_params(self, inputs: int, outputs: int) -> int:
        return self.rank * (self.rank - 1) // 2 + 2 * self.rank


@method("c3a")
class C3A(FromPeft):
    """Adds a block-circulant matrix to each weight: a circular convolution of the inputs."""

    block: PositiveInt = 32
    """Size of a circulant block; it divides inputs and outputs of each weight."""
    title = "C³A"
    paper = Paper("ACL Findings", 2025, "2407.19342")
    equation = r"W' = W + \tfrac{1}{in} (\mathrm{circ}(c_{ij}))_{ij}"
    evidence = "reference implementation"
    differs = f"{DIFFERS}. The block is ours, as peft's 256 does not divide every width."
    search = {"block": (16, 32, 64)}
    starts_as_identity = False

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "c3a", {"block_size": self.block}

    def update_params(self, inputs: int, outputs: int) -> int:
        return inputs * outputs // self.block


@method("supertuning")
class SuperTuning(FromPeft):
    """Trains the entries of each weight that are largest in magnitude."""

    share: float = 0.01
    """Fraction of the entries that is trained."""
    title = "Super-Tuning"
    paper = Paper("arXiv", 2026, "2607.09287")
    equation = r"W' = W + S,\ S \text{ zero where } |W| \text{ is not among the largest}"
    evidence = "reference implementation"
    differs = f"{DIFFERS}."
    search = {"share": (0.003, 0.01, 0.03)}

    def validate(self) -> None:
        super().validate()
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share} must be above 0 and at most 1")

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return "supertuning", {"sparsity": 1 - self.share}

    def update_params(self, inputs: int, outputs: int) -> int:
        return int(inputs * outputs * (1 - (1 - self.share)))  # as peft rounds
