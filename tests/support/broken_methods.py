"""Methods that each fail exactly one check: of the class, injection and training."""

from typing import Any

import torch
import torch.nn.functional as F
from right_method import Gained, Right, breaks
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.benchmark.method_checks import checks
from vtab_peft.methods import Method
from vtab_peft.methods.base import Loss, Paper


@breaks(checks.check_class_attributes, "does not end with a period")
class NoSentence(Right):
    """Has a sentence without period"""


@breaks(checks.check_class_attributes, "`title` is annotated.*`paper` is before 2017")
class HasWrongAttributes(Right):
    """Has invalid class attributes."""

    title: str = "A hyper-parameter now"
    paper = Paper("NeurIPS", 1987)


@breaks(checks.check_class_attributes, "`search` holds a value that is refused: .*gain must be positive")
class SearchesInvalidValues(Right):
    """Has a grid with a value that it refuses."""

    gain: float = 1.0
    search = {"gain": (0.0, 1.0)}

    def validate(self) -> None:
        if self.gain <= 0:
            raise ValueError("gain must be positive")


@breaks(checks.check_spec_roundtrip, r"gain=1.0\) returns a different method")
class DoublesItsField(Right):
    """Changes a field."""

    gain: float = 0.5

    def validate(self) -> None:
        object.__setattr__(self, "gain", 2 * self.gain)


class AxisTooMuch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:  # [b, d]
        return x if self.training else x[:, None]


@breaks(checks.check_output_shape, r"shape \(4, 1, 32\), not \(4, 32\)")
class WrongShape(Right):
    """Returns one axis too many in evaluation."""

    starts_as_identity = False
    merge = Method.merge

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        vit.fc_norm = AxisTooMuch()


class StartsElsewhere(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        nn.init.normal_(self.gain, 1.0, 0.02)


@breaks(checks.check_starts_as_identity, "the initial features differ .* by up to")
class ClaimsIdentity(Right):
    """Has a random initialisation but claims identity."""

    part = StartsElsewhere


@breaks(checks.check_starts_as_identity, "starts_as_identity is False, but")
class DeniesIdentity(Right):
    """Is the identity but denies it."""

    starts_as_identity = False


@breaks(
    checks.check_loss_terms, r"`PenaltyIsAFloat.penalty` \(broken_methods.py:\d+\) returned an object of type float"
)
class PenaltyIsAFloat(Right):
    """Has a penalty without effect."""

    def penalty(self, vit: VisionTransformer) -> Any:
        return 0.01


@breaks(
    checks.check_loss_terms,
    r"`PenaltyIsDetached.penalty` \(broken_methods.py:\d+\) returned a tensor that requires no grad",
)
class PenaltyIsDetached(Right):
    """Has a penalty without gradient."""

    @torch.no_grad()
    def penalty(self, vit: VisionTransformer) -> Tensor:
        return vit.get_submodule("blocks.0.norm1").gain.sum()


@breaks(checks.check_loss_terms, r"`LossOfEachImage.loss` \(broken_methods.py:\d+\) returned a tensor of shape \(4,\)")
class LossOfEachImage(Right):
    """Forgets the mean over the images."""

    def loss(self, vit: VisionTransformer, logits: Tensor, labels: Tensor, cross_entropy: Loss) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")


class Hidden(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.more = [nn.Linear(1, 1, bias=False)]
        nn.init.ones_(self.more[0].weight)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.more[0].weight


@breaks(checks.check_trains_parameters, r"trains tensors that are no parameters of it, of shape \(1, 1\)")
class HidesModules(Right):
    """Keeps a module in a list."""

    part = Hidden
    merge = Method.merge


@breaks(checks.check_trains_parameters, "no parameter is trainable")
class TrainsNothing(Right):
    """Forgets to unfreeze."""

    merge = Method.merge

    def inject(self, vit: VisionTransformer) -> None:
        pass

    def expected_params(self, vit: VisionTransformer) -> int:
        return 0


@breaks(checks.check_trains_parameters, "frozen_features is True, but 64 parameters are trainable: blocks.0.norm1.gain")
class ClaimsFrozenFeatures(Right):
    """Would be trained as a linear probe."""

    frozen_features = True


class Complex(Gained):
    """The fused optimiser takes no complex tensors."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.turn = nn.Parameter(torch.zeros(1, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + self.turn.real)


@breaks(checks.check_trains_parameters, r"blocks.0.norm1.turn \(torch.complex64\).* is trainable and not float32")
class TrainsComplexTensors(Right):
    """Has a complex parameter."""

    part = Complex
    merge = Method.merge

    def expected_params(self, vit: VisionTransformer) -> int:
        return super().expected_params(vit) + len(vit.blocks)


class Unused(Gained):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm)
        self.bias = nn.Parameter(torch.zeros_like(norm.weight))


@breaks(checks.check_gradients_reach_all, r"no gradient within 3 steps for blocks.0.norm1.bias, blocks.1.norm1.bias")
class ForgetsATensor(Right):
    """Has a bias that `forward` does not use."""

    part = Unused

    def expected_params(self, vit: VisionTransformer) -> int:
        return 2 * super().expected_params(vit)


class InStep(Gained):
    """Trains a copy of the weight and writes it to the frozen weight."""

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


@breaks(checks.check_frozen_unchanged, "training changed blocks.0.norm1.norm.weight, blocks.1")
class WritesToFrozenWeights(Right):
    """Changes frozen weights in training."""

    part = InStep


@breaks(checks.check_frozen_unchanged, "training left a gradient on blocks.0.norm1.norm.weight")
class LeavesGradients(Right):
    """Leaves gradients on frozen weights."""

    def after_step(self, vit: VisionTransformer, step: int, steps: int) -> None:
        norm = vit.get_submodule("blocks.0.norm1.norm")
        norm.weight.grad = torch.zeros_like(norm.weight)


@breaks(checks.check_backbone_unchanged, "changed or unfrozen: blocks.0.norm1.weight")
class CountsByInjecting(Right):
    """Counts by injecting into the given model."""

    def expected_params(self, vit: VisionTransformer) -> int:
        self.inject(vit)
        return sum(p.numel() for p in vit.parameters() if p.requires_grad)


@breaks(checks.check_backbone_unchanged, "changed or unfrozen: blocks.0.norm1.weight")
class CountsByUnfreezing(Right):
    """Counts by unfreezing the given model."""

    def expected_params(self, vit: VisionTransformer) -> int:
        return sum(block.norm1.weight.requires_grad_(True).numel() for block in vit.blocks)


@breaks(checks.check_parameter_count, "96 parameters are trainable, .* returns 64; .* norm.weight")
class TrainsTheFinalNorm(Right):
    """Trains one weight more than it counts."""

    def inject(self, vit: VisionTransformer) -> None:
        super().inject(vit)
        vit.norm.weight.requires_grad_(True)
