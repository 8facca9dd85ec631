"""Test how AdaLoRA prunes its triplets during training."""

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from golden_blocks import images, one_block_vit
from timm.models.vision_transformer import VisionTransformer
from vtab_peft.methods import parse
from vtab_peft.methods.adalora import AdaLoRA
from vtab_peft.methods.hf_peft import tuned_layers


def fit(vit: VisionTransformer, method: AdaLoRA, steps: int, seen: Callable[[int], None]) -> None:
    """Train like the engine, which calls `after_step` before it clears gradients."""
    own = [parameter for parameter in vit.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(own, lr=0.1)
    for step in range(1, steps + 1):
        (vit(images(4)).square().mean() + method.penalty(vit)).backward()
        optimizer.step()
        method.after_step(vit, step, steps)
        optimizer.zero_grad()
        seen(step)


def triplets(vit: VisionTransformer) -> list[int]:
    """Return the number of active triplets per weight."""
    return [int((layer.lora_E["default"] != 0).sum()) for layer in tuned_layers(vit).values()]


@pytest.mark.parametrize("copied", [False, True])
def test_adalora_prunes_triplets_to_the_target(copied: bool) -> None:
    method = cast(AdaLoRA, parse("adalora(rank=6, target_rank=2, hold=0.2, settle=0.4)"))
    vit = one_block_vit()
    torch.manual_seed(0)
    method.inject(vit)
    vit = copy.deepcopy(vit) if copied else vit
    on: list[int] = []
    fit(vit, method, 20, lambda _: on.append(sum(triplets(vit))))
    # q and v of one block: 12 triplets for 4 of 20 steps, then 4 + int(8 * (1 - (step - 4) / 8)^3) of them
    assert on[:4] == [12] * 4
    assert on[4:12] == [4 + int(8 * (1 - (step - 4) / 8) ** 3) for step in range(5, 13)]
    assert on[12:] == [4] * 8


def test_adalora_keeps_the_important_triplets() -> None:
    """Here only those of the value are important: the query has no influence on the output."""
    method = cast(AdaLoRA, parse("adalora(rank=4, target_rank=2, hold=0.2, settle=0.4, orthogonality=0.0)"))
    vit = one_block_vit()
    torch.manual_seed(0)
    with torch.no_grad():
        attention = cast(Any, vit.get_submodule("blocks.0.attn"))
        attention.qkv.weight[48:96] = 0  # equal keys: queries have no influence
        attention.qkv.bias[48:96] = 0
    method.inject(vit)
    fit(vit, method, 20, lambda _: None)
    assert triplets(vit) == [0, 4]


def test_penalty_of_adalora() -> None:
    method = cast(AdaLoRA, parse("adalora(rank=2, target_rank=1, orthogonality=0.5)"))
    vit = one_block_vit()
    method.inject(vit)
    with torch.no_grad():
        for layer in tuned_layers(vit).values():
            layer.lora_A["default"].copy_(torch.eye(2, 48))  # orthonormal: nothing
            layer.lora_B["default"].zero_()  # |I| = sqrt 2
    torch.testing.assert_close(method.penalty(vit), torch.tensor(0.5 * (0 + 2**0.5) / 2))
