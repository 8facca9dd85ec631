"""Models that are compiled or wrapped after `apply`, and models of other classes."""

from collections.abc import Callable

import pytest
import timm
import torch
import vtab_peft
from torch import nn


def vit() -> nn.Module:
    torch.manual_seed(0)
    tiny = {"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32}
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **tiny)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda model: torch.compile(nn.DataParallel(model))])
def test_a_model_wrapped_after_apply_is_saved_and_merged(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = vit()
    vtab_peft.apply(model, "lora")
    wrapped, expected = wrap(model), vtab_peft.adapter(model)
    saved = vtab_peft.adapter(wrapped)
    assert list(saved) == list(expected)
    assert all(torch.equal(saved[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match="inside"):
        vtab_peft.apply(wrapped, "bitfit")
    vtab_peft.merge(wrapped)
    assert model.state_dict().keys() == vit().state_dict().keys()


def test_only_an_eva_is_converted() -> None:
    for model in (vit(), nn.Linear(2, 2), None):
        with pytest.raises(ValueError, match=type(model).__name__):
            vtab_peft.plain_vit(model)


def test_an_unknown_method_is_named_in_words_of_python() -> None:
    with pytest.raises(ValueError, match="plugin=FILE"):
        vtab_peft.apply(vit(), "nothing_like_it")
