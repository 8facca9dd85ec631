"""Initial values are the same in every version of torch."""

import pytest
import torch
from scipy.stats import truncnorm
from vtab_peft.methods.initial_values import trunc_normal_

DRAWN = [-0.71925759, -0.2934289, -0.59663534, 0.56843126, -0.85667461, -0.71848005, 0.40334684, 0.83802634]
"""Draws of `torch.nn.init.trunc_normal_` in torch 2.14.1 with seed 0, std 1 and limit 1."""


def test_draws_are_those_of_one_torch() -> None:
    drawn = trunc_normal_(torch.empty(8), 1.0, 1.0, torch.Generator().manual_seed(0))
    assert drawn.tolist() == pytest.approx(DRAWN, rel=1e-6)


def test_the_spread_is_that_of_scipy() -> None:
    drawn = trunc_normal_(torch.empty(20_000), 0.02, 0.04, torch.Generator().manual_seed(0))
    assert drawn.abs().max() <= 0.04
    assert drawn.std().item() == pytest.approx(truncnorm(-2, 2, scale=0.02).std(), rel=0.02)


def test_a_model_without_values_is_left_alone() -> None:
    assert trunc_normal_(torch.empty(3, device="meta")).is_meta
