"""Compare visual prompts with numbers computed with official code."""

from collections.abc import Mapping
from typing import cast

import pytest
import timm
import torch
from golden_blocks import encoder
from golden_cases import Case, official_init
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from vtab_peft.methods import parse
from vtab_peft.methods.vpt import FreePrompts, PromptedBlock, initial_prompts


def prompted(case: Case) -> tuple[VisionTransformer, list[PromptedBlock]]:
    """Return the encoder of the case with its method injected, and the blocks that carry prompts."""
    frozen = case.part("frozen.")
    vit = encoder(case, tuple(case["x"].shape[2:]), frozen["patch_embed.proj.weight"].shape[-1])
    vit.load_state_dict(frozen)
    parse(f"{case.name}(tokens={case.hyper['num_tokens']})").inject(vit)
    return vit.double().eval(), [module for module in vit.modules() if isinstance(module, PromptedBlock)]


def compare(case: Case, vit: VisionTransformer, blocks: list[PromptedBlock], gradients: Mapping[str, slice]) -> None:
    """Compare the whole encoder with the case.

    The official code passes the last block's prompts on to the final norm.  Ours drops them, except in this test.

    Args:
        gradients: tensor of the case -> which of our blocks' prompts it holds.
    """
    with torch.no_grad():
        for name, which in gradients.items():
            for block, theirs in zip(blocks[which], case[f"param.{name}"], strict=True):
                block.prompts.tokens.copy_(theirs)
    blocks[-1].forward = blocks[-1].prompted
    vit.forward = vit.forward_features
    y, x = case.backward(vit)
    ours = {
        name: torch.stack([cast(Tensor, b.prompts.tokens.grad) for b in blocks[which]])
        for name, which in gradients.items()
    }
    case.check(y, x, ours)


def test_vpt_shallow() -> None:
    case = Case("vpt_shallow")
    vit, blocks = prompted(case)
    compare(case, vit, blocks, {"prompt_embeddings": slice(1)})


def test_vpt_deep() -> None:
    case = Case("vpt_deep")
    vit, blocks = prompted(case)
    compare(case, vit, blocks, {"prompt_embeddings": slice(1), "deep_prompt_embeddings": slice(1, None)})


@pytest.mark.parametrize("name", ["vpt_shallow", "vpt_deep"])
def test_output_without_prompts_is_that_of_the_case(name: str) -> None:
    """Compare class token and patches without the change that `compare` makes."""
    case = Case(name)
    vit, blocks = prompted(case)
    theirs = torch.cat([case["param.prompt_embeddings"], *case.part("param.deep_").values()])
    with torch.no_grad():
        for block, prompts in zip(blocks, theirs, strict=True):
            block.prompts.tokens.copy_(prompts)
        y = vit.forward_features(case["x"])
    patches = case["y"][:, 1 + case.hyper["num_tokens"] :]
    torch.testing.assert_close(y, torch.cat([case["y"][:, :1], patches], dim=1), rtol=0, atol=1e-10)


def test_prompt_initialisation() -> None:
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0)
    torch.manual_seed(0)
    with torch.device("cpu"):
        prompts = initial_prompts(vit, 50)
    official = official_init("vpt_deep")["prompt_embeddings"]
    assert float(prompts.abs().max()) <= 0.0625  # sqrt(6 / (3 * 16 * 16 + 768))
    assert float(prompts.max()) == pytest.approx(official["max"], rel=1e-3)
    assert float(prompts.std()) == pytest.approx(official["std"], rel=1e-2)


@pytest.mark.parametrize("name", ["vpt_shallow", "vpt_deep"])
def test_prompts_follow_prefix_tokens_and_are_not_pooled(name: str) -> None:
    shape = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 0}
    vit = VisionTransformer(**shape, reg_tokens=2, global_pool="avg")
    parse(f"{name}(tokens=5)").inject(vit)
    vit.eval()
    first = next(module for module in vit.modules() if isinstance(module, PromptedBlock))
    entered: list[Tensor] = []
    first.block.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    assert vit.forward_features(torch.randn(2, 3, 16, 16)).shape == (2, 3 + 4, 16)
    assert entered[0].shape == (2, 3 + 5 + 4, 16)
    assert torch.equal(entered[0][:, 3:8], first.prompts().expand(2, -1, -1))


def test_dropout_differs_between_images() -> None:
    block = PromptedBlock(torch.nn.Identity(), FreePrompts(torch.ones(4, 64)), prefix=1, dropout=0.5).train()
    tokens = block.prompted(torch.zeros(2, 3, 64))[:, 1:5]
    assert set(tokens.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(tokens[0], tokens[1])


@pytest.mark.parametrize("name", ["vpt_shallow", "vpt_deep"])
def test_at_least_one_token(name: str) -> None:
    assert_refused(f"{name}(tokens=0)", "tokens", 0)
