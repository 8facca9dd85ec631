"""GateVPT (Yoo et al., ICML 2023, arXiv:2306.05067): shallow prompts that pass each block in part.

    P -> g_l P' + (1 - g_l) P,   g_l = sigmoid(gate_l),   where [cls, P', x] = Block_l([cls, P, x])

Each attention divides its scores by a trained temperature, kept between 0.01 and 10.  The last block needs no gate
(ryongithub/GatedPromptTuning src/models/vit_prompt/vit_mae.py:21-178).  With mean pooling the release averages the
prompts' outputs too; here, as in all prompt methods of this suite, they are dropped (its option `img_pool`).
"""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt, Rate
from .attention import attend, check_attend
from .base import Method, Paper, method
from .vpt import initial_prompts

LIMITS = 0.01, 10.0
"""Smallest and largest temperature."""


class Tempered(nn.Module):
    """An attention whose scores are divided by a trained temperature."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention, self.temperature = attention, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, **masks: object) -> Tensor:  # [b, n, d]; timm passes masks that are None
        return attend(self.attention, x, x, temperature=self.temperature)


class GatedPrompts(nn.Module):
    """Runs the blocks with prompts after the first `prefix` tokens, and drops the prompts' outputs."""

    def __init__(self, blocks: nn.Sequential, prompts: Tensor, prefix: int, gate: float, dropout: float) -> None:
        super().__init__()
        self.blocks, self.prefix, self.dropout = blocks, prefix, nn.Dropout(dropout)
        self.prompts = nn.Parameter(prompts)  # [tokens, d]
        self.gates = nn.Parameter(torch.full((len(blocks) - 1,), gate))

    def forward(self, x: Tensor) -> Tensor:  # [b, prefix + patches, d]
        first, last = self.prefix, self.prefix + len(self.prompts)
        prompts = self.dropout(self.prompts.expand(len(x), -1, -1)).to(x.dtype)
        x = torch.cat([x[:, :first], prompts, x[:, first:]], dim=1)
        for block, gate in zip(self.blocks, self.gates.sigmoid(), strict=False):
            y = block(x)
            gated = gate * y[:, first:last] + (1 - gate) * x[:, first:last]
            x = torch.cat([y[:, :first], gated.to(y.dtype), y[:, last:]], dim=1)
        x = self.blocks[-1](x)
        return torch.cat([x[:, :first], x[:, last:]], dim=1)


@method("gate_vpt")
class GateVPT(Method):
    """Inserts trained tokens before the first block, with a trained gate and temperature for each block."""

    tokens: PositiveInt = 100
    gate: float = -5.0
    """Initial value of the gates, before the sigmoid: prompts initially pass the blocks almost unchanged."""
    dropout: Rate = 0.1
    title = "GateVPT"
    paper = Paper("ICML", 2023, "2306.05067", "ryongithub/GatedPromptTuning")
    equation = r"P \leftarrow g_l P' + (1-g_l) P,\quad [x_{cls}, P', x] = \mathrm{Block}_l([x_{cls}, P, x])"
    targets = "tokens of the first block, gates, temperatures"
    evidence = "authors' training"
    differs = "With mean pooling, the outputs of the prompts are not averaged; the release averages them for MAE."
    search = {"tokens": (10, 50, 100)}  # ours
    starts_as_identity = False

    def validate_backbone(self, vit: VisionTransformer) -> None:
        check_attend(vit)

    def inject(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            block.attn = Tempered(block.attn)
        prompts = initial_prompts(vit, self.tokens)
        vit.blocks = nn.Sequential(GatedPrompts(vit.blocks, prompts, vit.num_prefix_tokens, self.gate, self.dropout))

    @torch.no_grad()
    def after_step(self, vit: VisionTransformer, step: int, steps: int) -> None:
        for module in vit.modules():
            if isinstance(module, Tempered):
                module.temperature.clamp_(*LIMITS)

    def expected_params(self, vit: VisionTransformer) -> int:
        return self.tokens * vit.embed_dim + 2 * len(vit.blocks) - 1
