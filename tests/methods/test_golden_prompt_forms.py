"""Compare the forms of visual prompts that followed VPT with numbers computed with official code."""

from collections.abc import Mapping
from typing import cast

import pytest
import timm
import torch
from golden_blocks import assert_official_init, encoder
from golden_cases import Case
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.vpt import PromptedBlock


def injected(case: Case, spec: str) -> VisionTransformer:
    """Return the encoder of the case with a method injected."""
    frozen = case.part("frozen.")
    vit = encoder(case, tuple(case["x"].shape[2:]), frozen["patch_embed.proj.weight"].shape[-1])
    vit.load_state_dict(frozen)
    parse(spec).inject(vit)
    return vit.double().eval()


def prompts_of(vit: VisionTransformer) -> list[Tensor]:
    """Return the trained tokens of every block."""
    return [cast(Tensor, m.prompts.tokens) for m in vit.modules() if isinstance(m, PromptedBlock)]


def compare(case: Case, vit: nn.Module, tensors: Mapping[str, Tensor | list[Tensor]]) -> None:
    """Set the trained tensors, where a list is one official tensor in parts, and compare output and gradients."""
    with torch.no_grad():
        for name, ours in tensors.items():
            theirs = case[f"param.{name}"]
            for own, part in zip(ours, theirs, strict=True) if isinstance(ours, list) else [(ours, theirs)]:
                own.copy_(part.reshape(own.shape))
    y, x = case.backward(vit)

    def gradient(ours: Tensor | list[Tensor]) -> Tensor | None:
        if isinstance(ours, list):
            return torch.stack([part.grad if part.grad is not None else torch.zeros_like(part) for part in ours])
        return ours.grad

    case.check(y, x, {name: gradient(ours) for name, ours in tensors.items()})


def deep(prompts: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
    return {"prompt_embeddings": prompts[:1], "deep_prompt_embeddings": prompts[1:]}


class WithPrompts(nn.Module):
    """The features of all tokens, with the outputs of the last block's prompts, as official code returns them."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        last = [module for module in vit.modules() if isinstance(module, PromptedBlock)][-1]
        last.forward = last.prompted

    def forward(self, x: Tensor) -> Tensor:
        return self.vit.forward_features(x)


class Moved(nn.Module):
    """The prompts' outputs moved in a circle, for code that puts them in another order."""

    def __init__(self, module: nn.Module, tokens: int, steps: int) -> None:
        super().__init__()
        self.module, self.tokens, self.steps = module, tokens, steps

    def forward(self, x: Tensor) -> Tensor:
        y = self.module(x)
        return torch.cat([y[:, :1], y[:, 1 : 1 + self.tokens].roll(self.steps, 1), y[:, 1 + self.tokens :]], dim=1)


AXES = {"all": "both", "hidden": "channels", "sequence": "tokens"}


@pytest.mark.parametrize("name", ["vfpt_deep_all", "vfpt_deep_hidden", "vfpt_deep_sequence", "vfpt_deep_all_full"])
def test_vfpt(name: str) -> None:
    case = Case(name)
    tokens, fraction = case.hyper["num_tokens"], case.hyper["fourier_percentage"]
    vit = injected(case, f"vfpt(tokens={tokens}, fraction={fraction}, axes={AXES[case.hyper['fourier_dimension']]!r})")
    appended = case.hyper["fourier_location"] == "append"
    steps = -case.hyper["fourier_num_tokens"] if appended else 0
    compare(case, Moved(WithPrompts(vit), tokens, steps), deep(prompts_of(vit)))


def test_vfpt_initialisation() -> None:
    vit = timm.create_model("vit_base_patch16_224", num_classes=0)
    torch.manual_seed(0)
    parse("vfpt").inject(vit)
    first, *rest = prompts_of(vit)
    assert_official_init("vfpt_deep_all", {"prompt_embeddings": first, "deep_prompt_embeddings": torch.stack(rest)})


@pytest.mark.parametrize(
    ("spec", "facts"), [("vfpt(fraction=1.5)", ("fraction", "1.5")), ("vfpt(axes='all')", ("axes", "both", "channels"))]
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)
