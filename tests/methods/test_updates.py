"""Low-rank updates of one linear map are computed as one; it is the same as each by itself."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn
from vtab_peft.benchmark.contract.tiny import pictures, tiny, trained
from vtab_peft.methods import parse
from vtab_peft.methods.updates import Update, UpdatedLinear

LOW_RANK = [
    *("lora(sites='qv')", "lora(sites='k')", "lora(sites='qkvo,fc1,fc2', rank=3, alpha=7)", "lora_fused", "pissa"),
    *("aoft_lora(scale='ones')", "aoft_lora(sites='kv,fc2', form='exact')", "aoft_lora_dagger"),
]


@pytest.mark.parametrize("method", LOW_RANK)
def test_together_they_compute_what_each_does(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, features and gradients."""
    vit = trained(tiny("LayerScale"), parse(method))[0].vit.double()
    updates = [update for update in vit.modules() if isinstance(update, Update)]
    assert updates
    assert all(update.down_and_up() is not None for update in updates)
    ways = [computed(vit)]
    for update in updates:
        monkeypatch.setattr(update, "down_and_up", lambda: None)
    ways.append(computed(vit))
    for together, apart in zip(*ways, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)


def computed(vit: nn.Module) -> list[Tensor]:
    vit.zero_grad()
    features = vit(pictures().double())
    features.square().sum().backward()
    return [features, *(p.grad for p in vit.parameters() if p.requires_grad and p.grad is not None)]


@pytest.mark.parametrize("method", LOW_RANK)
def test_what_maps_down_and_up_is_the_weight_that_is_merged(method: str) -> None:
    vit = trained(tiny("plain"), parse(method))[0].vit.double()
    for update in [module for module in vit.modules() if isinstance(module, Update)]:
        down, up = cast(tuple[Tensor, Tensor], update.down_and_up())
        torch.testing.assert_close(up @ down, update.delta(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["lora_fused(dropout=0.1)", "aoft_lora_released", "spt_lora", "hta", "kadaptation"])
def test_what_does_more_than_two_products_is_computed_by_itself(method: str) -> None:
    vit = trained(tiny("plain"), parse(method))[0].vit
    inside = [
        module for linear in vit.modules() if isinstance(linear, UpdatedLinear) for module in linear.updates.values()
    ]
    assert inside
    assert all(isinstance(update, Update) and update.down_and_up() is None for update in inside)
