"""Methods that break the contract: each one check of it, and nothing else."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.benchmark.method_checks import checks as contract
from vtab_peft.benchmark.method_checks.checks import Check
from vtab_peft.methods import Method


class Gained(nn.Module):
    """x -> gain * norm(x): right, and the wrong ones change one line of it."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm, self.gain = norm, nn.Parameter(torch.ones_like(norm.weight))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        return self.norm(x) * self.gain

    @torch.no_grad()
    def merged(self) -> nn.LayerNorm:
        self.norm.weight *= self.gain
        self.norm.bias *= self.gain
        return self.norm


@dataclass(frozen=True)
class Right(Method):
    """A learned factor per channel behind each block's first LayerNorm."""

    title = "Right"
    paper = None
    equation = r"y = g \odot \mathrm{LN}(x)"
    targets = "first LayerNorm of each block"
    evidence = "closed form"
    part = Gained

    def inject(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            block.norm1 = self.part(block.norm1)

    def merge(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            block.norm1 = block.norm1.merged()

    def expected_params(self, vit: VisionTransformer) -> int:
        return len(vit.blocks) * vit.embed_dim


BREAKERS: list[tuple[Check, type[Method], str]] = []
"""A check, a method that breaks it alone, and what the violation says."""


def breaks(check: Check, says: str) -> Callable[[type[Method]], type[Method]]:
    def add(cls: type[Method]) -> type[Method]:
        BREAKERS.append((check, cls, says))
        return cls

    return add


@breaks(contract.lists_can_say_what_it_is, "no sentence that ends with a period")
@dataclass(frozen=True)
class NoSentence(Right):
    """Words without an end"""


@breaks(contract.lists_can_say_what_it_is, "`title` is annotated.*`evidence` is none of golden, .*`search` names gian")
@dataclass(frozen=True)
class FactsOfEveryKindAreWrong(Right):
    """Facts in the wrong places."""

    title: str = "A hyper-parameter now"
    evidence = "obvious"
    search = {"gian": (1.0,)}


@breaks(contract.lists_can_say_what_it_is, "`search` holds a value that is refused: .*gain must be positive")
@dataclass(frozen=True)
class SearchesWhereItCannotGo(Right):
    """A grid with a value that the method itself refuses."""

    gain: float = 1.0
    search = {"gain": (0.0, 1.0)}

    def __post_init__(self) -> None:
        if self.gain <= 0:
            raise ValueError("gain must be positive")


@breaks(contract.its_spec_string_means_the_same_method, r"\(gain=1.0\) means another method")
@dataclass(frozen=True)
class DoublesItsField(Right):
    """Fields that do not stay as they are given."""

    gain: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "gain", 2 * self.gain)


@breaks(contract.its_spec_string_means_the_same_method, "the value of 'dtype' must be a plain literal")
@dataclass(frozen=True)
class TakesADtype(Right):
    """A field that no text can stand for."""

    dtype: Any = field(default=torch.float32)


@breaks(contract.its_spec_string_means_the_same_method, "no dataclass")
class NoDataclass(Right):
    """A class whose fields nobody collects."""

    gain: float = 1.0


class AxisTooMuch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:  # [b, d]
        return x if self.training else x[:, None]


@breaks(contract.features_keep_their_shape, r"shape \(4, 1, 32\), not \(4, 32\)")
@dataclass(frozen=True)
class WrongShape(Right):
    """One axis too many in evaluation."""

    starts_as_identity = False
    merge = Method.merge

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        vit.fc_norm = AxisTooMuch()


class StartsElsewhere(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        nn.init.normal_(self.gain, 1.0, 0.02)


@breaks(contract.the_start_is_the_pretrained_model_where_claimed, "the features differ .* by up to")
@dataclass(frozen=True)
class ClaimsIdentity(Right):
    """A random start that claims to be none."""

    part = StartsElsewhere


@breaks(contract.the_start_is_the_pretrained_model_where_claimed, "starts_as_identity is False, but")
@dataclass(frozen=True)
class DeniesIdentity(Right):
    """The pretrained model, which it denies."""

    starts_as_identity = False


class Unused(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.bias = nn.Parameter(torch.zeros_like(norm.weight))


@breaks(
    contract.every_trainable_tensor_learns, r"no gradient within 3 steps for blocks.0.norm1.bias, blocks.1.norm1.bias"
)
@dataclass(frozen=True)
class ForgetsATensor(Right):
    """A trained bias that `forward` does not know."""

    part = Unused

    def expected_params(self, vit: VisionTransformer) -> int:
        return 2 * super().expected_params(vit)


class InStep(Gained):
    """Learns a copy of the weight, and keeps the frozen one in step with it for nobody."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.gain = nn.Parameter(norm.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.norm.weight.data.copy_(self.gain.detach())
        return F.layer_norm(x, self.norm.normalized_shape, self.gain, self.norm.bias, self.norm.eps)

    @torch.no_grad()
    def merged(self) -> nn.LayerNorm:
        self.norm.weight.copy_(self.gain)
        return self.norm


@breaks(contract.frozen_weights_do_not_move, "training changed blocks.0.norm1.norm.weight, blocks.1")
@dataclass(frozen=True)
class WritesToFrozenWeights(Right):
    """Frozen weights that follow what is learned."""

    part = InStep


@breaks(contract.frozen_weights_do_not_move, "training left a gradient on blocks.0.norm1.norm.weight")
@dataclass(frozen=True)
class LeavesGradients(Right):
    """Gradients on what is frozen."""

    def after_step(self, vit: VisionTransformer, step: int, steps: int) -> None:
        norm = vit.get_submodule("blocks.0.norm1.norm")
        norm.weight.grad = torch.zeros_like(norm.weight)


@breaks(contract.the_original_backbone_is_left_alone, "changed or unfrozen: blocks.0.norm1.weight")
@dataclass(frozen=True)
class CountsByInjecting(Right):
    """A count that leaves the method in the model it was asked about."""

    def expected_params(self, vit: VisionTransformer) -> int:
        self.inject(vit)
        return sum(p.numel() for p in vit.parameters() if p.requires_grad)


@breaks(contract.the_original_backbone_is_left_alone, "changed or unfrozen: blocks.0.norm1.weight")
@dataclass(frozen=True)
class CountsByUnfreezing(Right):
    """A count that unfreezes what it counts."""

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(block.norm1.weight.requires_grad_(True).numel() for block in vit.blocks)


@breaks(contract.the_parameter_count_is_the_closed_form, "96 parameters learn, .* says 64; .* norm.weight")
@dataclass(frozen=True)
class TrainsTheFinalNorm(Right):
    """One weight more than it says."""

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        vit.norm.weight.requires_grad_(True)


class Unseeded(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.gain.data *= 1 + 0.1 * random.SystemRandom().random()


@breaks(contract.the_same_seed_gives_the_same_weights, "with one seed differ in blocks.0.norm1.gain")
@dataclass(frozen=True)
class DrawsElsewhere(Right):
    """A start drawn from a generator that nobody seeds."""

    part = Unseeded
    starts_as_identity = False


class Forgetful(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.register_buffer("direction", 1 + 0.1 * torch.randn_like(norm.weight), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.direction


@breaks(contract.what_was_learned_goes_into_a_fresh_model, "a fresh model with the adapter loaded")
@dataclass(frozen=True)
class LosesItsBuffer(Right):
    """A random buffer that is not saved."""

    part = Forgetful
    starts_as_identity = False
    merge = Method.merge


class Hoarder(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.register_buffer("before", norm.weight.clone())


@breaks(contract.the_adapter_holds_what_learns_and_no_more, "also hold blocks.0.norm1.before, blocks.1.norm1.before")
@dataclass(frozen=True)
class SavesTheCheckpoint(Right):
    """A saved copy of pretrained weights."""

    part = Hoarder


class MergesHalf(Gained):
    @torch.no_grad()
    def merged(self) -> nn.LayerNorm:
        self.norm.weight *= self.gain
        return self.norm


@breaks(contract.if_it_merges_the_plain_model_computes_the_same, "features of the merged model are up to")
@dataclass(frozen=True)
class ForgetsTheBias(Right):
    """A merge without the bias."""

    part = MergesHalf


@breaks(
    contract.if_it_merges_the_plain_model_computes_the_same, "not the plain one; they differ in blocks.0.norm1.bias"
)
@dataclass(frozen=True)
class MergesNothing(Right):
    """A merge that leaves everything where it is."""

    def merge(self, vit: VisionTransformer) -> None:
        pass


class Coarse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:  # [b, d]
        turned = x @ torch.eye(x.shape[1])  # in bf16 under autocast, where 1000 has no neighbour nearer than 4
        return (turned + 1000) - 1000


class AddsMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        return x + x.mean(dim=1, keepdim=True)


@breaks(contract.past_attention_each_token_is_by_itself, "away where the last block goes on with one token")
@dataclass(frozen=True)
class MixesTokens(Right):
    """The mean of all tokens added to each, in front of the MLP."""

    starts_as_identity = False
    merge = Method.merge

    def inject(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            block.norm2 = nn.Sequential(Gained(block.norm2), AddsMean())


@breaks(contract.past_attention_each_token_is_by_itself, "away where the last block goes on with one token")
@dataclass(frozen=True)
class MixesAnswers(MixesTokens):
    """The same behind attention."""

    def inject(self, vit: VisionTransformer) -> None:
        Right.inject(self, vit)
        for block in vit.blocks:
            block.attn.proj_drop = AddsMean()


@breaks(contract.bf16_stays_close_to_fp32, "% away under bf16 autocast")
@dataclass(frozen=True)
class TakesDifferences(Right):
    """Small differences of large numbers."""

    starts_as_identity = False
    merge = Method.merge

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        vit.fc_norm = Coarse()


class Undecided(Gained):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() < 1e9 else x


@breaks(contract.it_compiles_as_one_graph, r"torch.compile cannot go on at .*broken_methods.py:\d+: Data")
@dataclass(frozen=True)
class DecidesByValues(Right):
    """Control flow by the values of a tensor."""

    part = Undecided
