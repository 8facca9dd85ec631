"""Visual prompts against numbers computed with the authors' code."""

from collections.abc import Mapping
from typing import cast

import pytest
import timm
import torch
from golden_cases import MANIFEST, Case
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from vtab_peft.methods import parse
from vtab_peft.methods.vpt import FreePrompts, PromptedBlock, initial_prompts


def prompted(case: Case, spec: str) -> tuple[VisionTransformer, list[PromptedBlock]]:
    """The encoder of the case with the method in it, and the blocks that carry prompts."""
    frozen = case.part("frozen.")
    depth = len({name.split(".")[1] for name in frozen if name.startswith("blocks.")})
    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=48, depth=depth, num_heads=4, num_classes=0).double()
    vit.load_state_dict(frozen)
    vit.requires_grad_(False)
    parse(spec).inject(vit)
    return vit.double().eval(), [module for module in vit.modules() if isinstance(module, PromptedBlock)]


def compare(case: Case, vit: VisionTransformer, blocks: list[PromptedBlock], gradients: Mapping[str, slice]) -> None:
    """gradients: tensor of the case -> which of our blocks' prompts it holds.

    The authors hand the last block's prompts on to the final norm; ours does so here in order to be compared whole.
    """
    with torch.no_grad():
        for name, which in gradients.items():
            for block, theirs in zip(blocks[which], case[f"param.{name}"], strict=True):
                block.prompts.tokens.copy_(theirs)
    blocks[-1].forward = blocks[-1].prompted
    x = case["x"].clone().requires_grad_(True)
    y = vit.forward_features(x)
    (y * case["cotangent"]).sum().backward()
    ours = {
        name: torch.stack([cast(Tensor, b.prompts.tokens.grad) for b in blocks[which]])
        for name, which in gradients.items()
    }
    case.check(y, x, ours)


def test_vpt_shallow() -> None:
    case = Case("vpt_shallow")
    vit, blocks = prompted(case, f"vpt_shallow(tokens={MANIFEST['vpt_shallow']['hyper']['num_tokens']})")
    compare(case, vit, blocks, {"prompt_embeddings": slice(1)})


def test_vpt_deep() -> None:
    case = Case("vpt_deep")
    vit, blocks = prompted(case, f"vpt_deep(tokens={MANIFEST['vpt_deep']['hyper']['num_tokens']})")
    compare(case, vit, blocks, {"prompt_embeddings": slice(1), "deep_prompt_embeddings": slice(1, None)})


@pytest.mark.parametrize("name", ["vpt_shallow", "vpt_deep"])
def test_tokens_that_are_read_are_those_of_the_case(name: str) -> None:
    """Without the change that `compare` makes: class token and patches, the prompts left out."""
    case = Case(name)
    vit, blocks = prompted(case, f"{name}(tokens=3)")
    theirs = torch.cat([case["param.prompt_embeddings"], *case.part("param.deep_").values()])
    with torch.no_grad():
        for block, prompts in zip(blocks, theirs, strict=True):
            block.prompts.tokens.copy_(prompts)
        y = vit.forward_features(case["x"])
    torch.testing.assert_close(y, torch.cat([case["y"][:, :1], case["y"][:, 4:]], dim=1), rtol=0, atol=1e-10)


def test_prompts_start_within_the_bound_of_the_authors() -> None:
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0)
    torch.manual_seed(0)
    with torch.device("cpu"):
        prompts = initial_prompts(vit, 50)
    official = MANIFEST["vpt_deep"]["official_init_d768"]["prompt_embeddings"]
    assert float(prompts.abs().max()) <= 0.0625  # sqrt(6 / (3 * 16 * 16 + 768))
    assert float(prompts.max()) == pytest.approx(official["max"], rel=1e-3)
    assert float(prompts.std()) == pytest.approx(official["std"], rel=1e-2)


@pytest.mark.parametrize("name", ["vpt_shallow", "vpt_deep"])
def test_prompts_stand_behind_all_prefix_tokens_and_are_not_pooled(name: str) -> None:
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


def test_each_image_has_a_dropout_of_its_own() -> None:
    block = PromptedBlock(torch.nn.Identity(), FreePrompts(torch.ones(4, 64)), prefix=1, dropout=0.5).train()
    tokens = block.prompted(torch.zeros(2, 3, 64))[:, 1:5]
    assert set(tokens.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(tokens[0], tokens[1])


@pytest.mark.parametrize("name", ["vpt_shallow", "vpt_deep"])
def test_at_least_one_token(name: str) -> None:
    with pytest.raises(ValueError, match="tokens must be at least 1, not 0"):
        parse(f"{name}(tokens=0)")
