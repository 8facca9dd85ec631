"""Methods that each fail exactly one check: of initial values, saved state, merging and numerics."""

import random

import torch
from right_method import Gained, Right, breaks
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.benchmark.method_checks import checks
from vtab_peft.methods import Method


class Unseeded(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.gain.data *= 1 + 0.1 * random.SystemRandom().random()


@breaks(checks.check_deterministic, "with one seed differ in blocks.0.norm1.gain")
class DrawsElsewhere(Right):
    """Draws initial values from an unseeded generator."""

    part = Unseeded
    starts_as_identity = False


class WarmsUp(Gained):
    """Begins with the second step."""

    steps = 0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.steps or not self.training else self.norm(x)


@breaks(checks.check_reused_model, "a second training in the same model differs in blocks.0.norm1.gain")
class CountsInPython(Right):
    """Counts steps in an attribute."""

    part = WarmsUp

    def after_step(self, vit: VisionTransformer, step: int, steps: int) -> None:
        for index in range(len(vit.blocks)):
            vit.get_submodule(f"blocks.{index}.norm1").steps += 1


class Forgetful(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.register_buffer("direction", 1 + 0.1 * torch.randn_like(norm.weight), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.direction


@breaks(checks.check_adapter_roundtrip, "a fresh model with the adapter loaded")
class LosesItsBuffer(Right):
    """Does not save a random buffer."""

    part = Forgetful
    starts_as_identity = False
    merge = Method.merge


class Hoarder(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.register_buffer("before", norm.weight.clone())


@breaks(checks.check_adapter_contents, "also contain blocks.0.norm1.before, blocks.1.norm1.before")
class SavesTheCheckpoint(Right):
    """Saves a copy of pretrained weights."""

    part = Hoarder


class MergesHalf(Gained):
    @torch.no_grad()
    def merged(self) -> nn.LayerNorm:
        self.norm.weight *= self.gain
        return self.norm


@breaks(checks.check_merge_equivalence, "features of the merged model differ by up to")
class ForgetsTheBias(Right):
    """Does not merge the bias."""

    part = MergesHalf


@breaks(checks.check_merge_equivalence, "the plain one differ in blocks.0.norm1.bias")
class MergesNothing(Right):
    """Merges nothing."""

    def merge(self, vit: VisionTransformer) -> None:
        pass


@breaks(checks.check_merge_equivalence, "give a plain model features that differ by up to")
class LeavesAnActivation(Right):
    """Undoes the weights and forgets the activation."""

    starts_as_identity = False

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        for block in vit.blocks:
            block.mlp.act = nn.ReLU()


class Coarse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:  # [b, d]
        turned = x @ torch.eye(x.shape[1])  # bf16 under autocast, where the neighbours of 1000 are 4 apart
        return (turned + 1000) - 1000


class AddsMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        return x + x.mean(dim=1, keepdim=True)


@breaks(checks.check_token_independence, "when the last block computes one token")
class MixesTokens(Right):
    """Adds the mean of all tokens to each, before the MLP."""

    starts_as_identity = False
    merge = Method.merge

    def inject(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            block.norm2 = nn.Sequential(Gained(block.norm2), AddsMean())


@breaks(checks.check_token_independence, "when the last block computes one token")
class MixesAnswers(MixesTokens):
    """Adds the mean of all tokens to each, after attention."""

    def inject(self, vit: VisionTransformer) -> None:
        Right.inject(self, vit)
        for block in vit.blocks:
            block.attn.proj_drop = AddsMean()


@breaks(checks.check_bf16_close, "% under bf16 autocast")
class TakesDifferences(Right):
    """Computes small differences of large numbers."""

    starts_as_identity = False
    merge = Method.merge

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        vit.fc_norm = Coarse()


class Undecided(Gained):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() < 1e9 else x


@breaks(checks.check_compiles, r"torch.compile stops at .*broken_after_training.py:\d+: Data")
class DecidesByValues(Right):
    """Branches on the values of a tensor."""

    part = Undecided
