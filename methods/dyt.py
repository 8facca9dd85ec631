"""DyT, dynamic tuning (Zhao et al., NeurIPS 2024, arXiv:2403.11808): patches that skip the MLP, and an adapter for all.

    x_1 = x + Attn(LN(x)),   m = [sigmoid(w x_1 + b) > 1/2]
    y = x_1 + m MLP(LN(x_1)) + s (W_u relu(W_d x_1 + b_d) + b_u)

Training adds Gumbel noise to the gate's logits, divides them by 5, and passes the gradient straight through the step.
Its loss compares the masked pass with a complete one, in which no token skips:

    CE(masked) + 2 (mean m - 1/2)^2 + CE(complete) + KL(complete || masked)

(NUS-HPC-AI-Lab/Dynamic-Tuning models/dynamic_adapter.py, models/losses.py, engine_finetune.py).  Tokens that skip are
computed and multiplied by zero here, so that there is no gain in speed.
"""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .adaptformer import ParallelBottleneck
from .arguments import PositiveInt, Rate
from .base import Loss, Method, Paper, method
from .blocks import branches
from .initial_values import trunc_normal_

TEMPERATURE = 5.0
"""Divides the noisy logits of the gate in training."""


class Gate(nn.Module):
    """Tokens [b, n, d] -> 1 for those that pass the MLP, and for the first `prefix` tokens, else 0: [b, n, 1]."""

    def __init__(self, d: int, prefix: int) -> None:
        super().__init__()
        self.linear, self.prefix = nn.Linear(d, 1), prefix
        trunc_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def noise(self, logits: Tensor) -> Tensor:
        """Return the difference of two Gumbel draws."""
        return torch.empty_like(logits).exponential_().log() - torch.empty_like(logits).exponential_().log()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.linear(x[:, self.prefix :]).to(self.linear.weight.dtype)
        soft = ((logits + self.noise(logits)) / TEMPERATURE if self.training else logits).sigmoid()
        passed = (soft > 0.5).to(soft.dtype) - soft.detach() + soft
        return torch.cat([passed.new_ones(len(x), self.prefix, 1), passed], dim=1)


class DispatchedBlock(nn.Module):
    """A block whose MLP the gate masks; in training only for the first half of the batch."""

    def __init__(self, block: nn.Module, gate: Gate, adapter: ParallelBottleneck) -> None:
        super().__init__()
        self.attention, self.mlp = branches(block)
        self.gate, self.adapter = gate, adapter
        self.passed: Tensor | None = None
        """The gate's output for the patches, in training until the loss is computed."""
        self.skips = False
        """True if evaluation computes the MLP of the passing tokens alone, instead of masking the others' result."""

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        x = self.attention(x)
        if self.skips and not self.training:
            passing = self.gate(x)[..., 0] > 0.5  # [b, n]
            y = x + self.adapter(x, x)
            y[passing] += self._mlp(x[passing].unsqueeze(0)).squeeze(0).to(y.dtype)
            return y
        mlp = self._mlp(x)  # before the gate: both draw random numbers
        mask = self.gate(x[: (len(x) + 1) // 2] if self.training else x)
        if self.training:
            self.passed = mask[:, self.gate.prefix :]
            mask = torch.cat([mask, mask.new_ones(len(x) - len(mask), *mask.shape[1:])])
        return x + mlp * mask.to(mlp.dtype) + self.adapter(x, x)

    def _mlp(self, x: Tensor) -> Tensor:
        return self.mlp.drop_path(self.mlp.scale(self.mlp.inner(self.mlp.norm(x))))


def budget_loss(passed: Tensor, target: float) -> Tensor:
    """Return the squared distance of the part of tokens that passed from the target, with the release's weight."""
    return 2 * (passed.mean() - target).square()


@method("dyt")
class DyT(Method):
    """Lets patches skip the MLP by a trained gate, and adds a bottleneck for all tokens in parallel."""

    bottleneck: PositiveInt = 16
    scale: float = 1.0
    target: float = 0.5
    """Part of the patches that shall pass the MLP."""
    dropout: Rate = 0.1
    title = "DyT"
    paper = Paper("NeurIPS", 2024, "2403.11808", "NUS-HPC-AI-Lab/Dynamic-Tuning")
    equation = (
        r"y = x + m\,\mathrm{MLP}(\mathrm{LN}(x)) + s\,(W_u\,\mathrm{ReLU}(W_d x + b_d) + b_u),"
        r"\ m = [\sigma(w x + b) > \tfrac12]"
    )
    targets = "gate of and parallel to the MLP"
    evidence = "authors' training"
    search = {"target": (0.3, 0.5, 0.7), "scale": (0.1, 1.0)}  # ours; the release sets scale 1 for all tasks
    starts_as_identity = False  # the gate initially masks about half of the patches
    copies = 2
    needs_whole_batch = True  # its budget is a square of the mean over the batch

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            adapter = ParallelBottleneck(vit.embed_dim, self.bottleneck, self.scale, self.dropout)
            vit.blocks[i] = DispatchedBlock(block, Gate(vit.embed_dim, vit.num_prefix_tokens), adapter)

    def loss(self, vit: VisionTransformer, logits: Tensor, labels: Tensor, cross_entropy: Loss) -> Tensor:
        blocks = [block for block in vit.modules() if isinstance(block, DispatchedBlock)]
        passed = torch.stack([block.passed for block in blocks if block.passed is not None])
        for block in blocks:
            block.passed = None
        masked, complete = logits.chunk(2)
        distillation = F.kl_div(
            masked.log_softmax(1), complete.detach().log_softmax(1), reduction="batchmean", log_target=True
        )
        supervised = cross_entropy(masked, labels) + cross_entropy(complete, labels)
        return supervised + budget_loss(passed, self.target) + distillation

    def skip_tokens(self, vit: VisionTransformer) -> None:
        for block in vit.modules():
            if isinstance(block, DispatchedBlock):
                block.skips = True

    def expected_params(self, vit: VisionTransformer) -> int:
        d, r = vit.embed_dim, self.bottleneck
        return len(vit.blocks) * (2 * d * r + r + d + d + 1)
