"""Low-rank updates of one linear map are computed as one; it is the same as each by itself."""

import pytest
import torch
from torch import Tensor, nn
from vtab_peft.benchmark.method_checks.tiny_models import sample_images, tiny, train_few_steps
from vtab_peft.methods import parse
from vtab_peft.methods.lora import LowRank
from vtab_peft.methods.updates import LowRankUpdate, UpdatedLinear

LOW_RANK = [
    *("lora(sites='qv')", "lora(sites='k')", "lora(sites='qkvo,fc1,fc2', rank=3, alpha=7)", "lora_fused", "pissa"),
    *("aoft_lora(scale='ones')", "aoft_lora(sites='kv,fc2', form='exact')", "aoft_lora_dagger"),
]
BY_THEMSELVES = ["lora_fused(dropout=0.1)", "aoft_lora_released", "spt_lora", "hta", "kadaptation"]


def updated(vit: nn.Module) -> list[UpdatedLinear]:
    found = [module for module in vit.modules() if isinstance(module, UpdatedLinear)]
    assert found
    return found


@pytest.mark.parametrize("method", LOW_RANK)
def test_together_they_compute_what_each_does(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, features and gradients."""
    vit = train_few_steps(tiny("LayerScale"), parse(method))[0].vit.double()
    together = computed(vit)
    calls = []
    for linear in updated(vit):
        for update in linear.updates.values():
            own = update.forward
            monkeypatch.setattr(update, "forward", lambda x, own=own: calls.append(1) or own(x))
    apart = computed(vit)
    assert len(calls) == sum(len(linear.updates) for linear in updated(vit))
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def computed(vit: nn.Module) -> list[Tensor]:
    vit.zero_grad()
    features = vit(sample_images().double())
    features.square().sum().backward()
    return [features, *(p.grad for p in vit.parameters() if p.requires_grad and p.grad is not None)]


@pytest.mark.parametrize(("method", "alone"), [*((m, False) for m in LOW_RANK), *((m, True) for m in BY_THEMSELVES)])
def test_what_does_more_than_two_products_is_computed_by_itself(method: str, alone: bool) -> None:
    vit = train_few_steps(tiny("plain"), parse(method))[0].vit
    run = []
    for linear in updated(vit):
        for update in linear.updates.values():
            update.register_forward_hook(lambda *_: run.append(1))
    vit(sample_images())
    assert bool(run) == alone


class Doubled(LowRank):
    """Overrides what is computed, and not what `down_and_up` says."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("where", ["class", "instance"])
def test_what_overrides_forward_is_asked_for_what_it_computes(where: str) -> None:
    linear, x = nn.Linear(6, 6), torch.randn(2, 3, 6)
    update = (Doubled if where == "class" else LowRank)(linear.weight, rank=2, scale=1.0)
    nn.init.normal_(update.b)
    if where == "instance":
        update.forward = lambda x: 2 * LowRankUpdate.forward(update, x)
    found = UpdatedLinear(linear, ("o",), {"o": update})(x)
    torch.testing.assert_close(found, linear(x) + 2 * x @ update.delta().T)
