"""VFPT, visual Fourier prompt tuning (Zeng et al., NeurIPS 2024, arXiv:2411.01327): prompts in the frequency domain.

    [cls, Re(F P_1), P_2, patches] -> Block -> [cls, _, _, patches]

The first part of each block's prompts passes a discrete Fourier transform, over channels, over tokens, or over both.
The transform is not normalised, and its length over tokens is the number of transformed prompts
(runtsang/VFPT src/models/vit_prompt/vit_fourier.py).
"""

from typing import Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .base import Method, Paper, method
from .vpt import FreePrompts, PromptedBlock, initial_prompts

AXES: dict[str, tuple[int, ...]] = {"both": (0, 1), "channels": (1,), "tokens": (0,)}


class FourierPrompts(FreePrompts):
    """Prompts [tokens, d] of which the first `transformed` are the real part of a Fourier transform."""

    def __init__(self, tokens: Tensor, transformed: int, axes: tuple[int, ...]) -> None:
        super().__init__(tokens)
        self.transformed, self.axes = transformed, axes

    def forward(self) -> Tensor:
        if not self.transformed:
            return self.tokens
        spectrum = torch.fft.fftn(self.tokens[: self.transformed], dim=self.axes).real
        return torch.cat([spectrum, self.tokens[self.transformed :]])


@method("vfpt")
class VFPT(Method):
    """Inserts trained tokens before every block, a part of them in the frequency domain."""

    tokens: PositiveInt = 10
    fraction: float = 0.5
    """Part of the prompts that is transformed, rounded down to whole prompts (src/configs/config.py)."""
    axes: Literal["both", "channels", "tokens"] = "both"
    dropout: Rate = 0.1
    title = "VFPT"
    paper = Paper("NeurIPS", 2024, "2411.01327", "runtsang/VFPT")
    equation = r"[x_{cls}, \_, x] \leftarrow \mathrm{Block}_l([x_{cls}, \mathrm{Re}(\mathcal{F} P_l^1), P_l^2, x])"
    targets = "tokens of every block"
    evidence = "authors' training"
    search = {"fraction": (0.3, 0.5, 0.7, 1.0)}  # ours, from the paper's range of 0 to 100 %
    starts_as_identity = False

    def validate(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"fraction must be between 0 and 1, not {self.fraction}")

    def inject(self, vit: VisionTransformer) -> None:
        transformed = int(self.fraction * self.tokens)
        for i, block in enumerate(vit.blocks):
            prompts: nn.Module = FourierPrompts(initial_prompts(vit, self.tokens), transformed, AXES[self.axes])
            vit.blocks[i] = PromptedBlock(block, prompts, vit.num_prefix_tokens, self.dropout)

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * self.tokens * vit.embed_dim
