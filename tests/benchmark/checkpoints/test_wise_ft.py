"""WiSE-FT: interpolation between pretrained and merged weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from vtab_peft.benchmark.checkpoints.wise_ft import best_alpha, interpolated


@pytest.mark.parametrize("name", ["lora(rank=2)", "bitfit"])
def test_weights_are_between_pretrained_and_merged_ones(name: str, make_trained: Callable[..., Any]) -> None:
    run = make_trained(name)
    pretrained, merged = run.backbone.vit.state_dict(), run.merged().state_dict()
    alphas = (1.0, 0.0, 0.3)
    for alpha, vit in zip(alphas, interpolated(run, alphas), strict=True):
        found = vit.state_dict()
        assert found.keys() == pretrained.keys()
        for key, tensor in found.items():
            torch.testing.assert_close(tensor, (1 - alpha) * pretrained[key] + alpha * merged[key])
    assert any(not torch.equal(pretrained[key], merged[key]) for key in merged)


@pytest.mark.parametrize("name", ["linear", "vpt_deep(tokens=2)"])
def test_methods_without_other_weights_are_refused(name: str, make_trained: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=name.partition("(")[0]):
        next(interpolated(make_trained(name), [0.5]))


def test_best_alpha_is_the_largest_of_equals() -> None:
    assert best_alpha([(0.0, 0.2), (0.5, 0.7), (0.7, 0.7), (1.0, 0.6)]) == 0.7
