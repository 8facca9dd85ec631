"""Compare the forms of visual prompts that followed VPT with numbers computed with official code."""

from collections.abc import Mapping
from typing import cast

import pytest
import torch
from golden_blocks import assert_official_init, encoder, injected, weights_and_biases
from golden_cases import Case, official_init
from raises import raises_naming
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.e2vpt import KeyValuePrompted
from vtab_peft.methods.gate_vpt import GatedPrompts, Tempered
from vtab_peft.methods.sa2vp import TwoStreams, neighbourhood
from vtab_peft.methods.vapt import AdaptivePrompts
from vtab_peft.methods.vpt import PromptedBlock


def prompted_encoder(case: Case, spec: str) -> VisionTransformer:
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
    vit = prompted_encoder(
        case, f"vfpt(tokens={tokens}, fraction={fraction}, axes={AXES[case.hyper['fourier_dimension']]!r})"
    )
    appended = case.hyper["fourier_location"] == "append"
    steps = -case.hyper["fourier_num_tokens"] if appended else 0
    compare(case, Moved(WithPrompts(vit), tokens, steps), deep(prompts_of(vit)))


def base_width(depth: int = 12) -> VisionTransformer:
    """Return blocks of ViT-B's width, but for the small MLPs, in which nothing is prompted."""
    return VisionTransformer(depth=depth, num_heads=12, mlp_ratio=0.1, num_classes=0)


def with_base_width(spec: str, depth: int = 12) -> VisionTransformer:
    vit = base_width(depth)
    torch.manual_seed(0)
    parse(spec).inject(vit)
    return vit


def test_vfpt_initialisation() -> None:
    first, *rest = prompts_of(with_base_width("vfpt"))
    assert_official_init("vfpt_deep_all", {"prompt_embeddings": first, "deep_prompt_embeddings": torch.stack(rest)})


POSITIONS = {1: "before", 3: "between", 5: "after"}


@pytest.mark.parametrize("name", ["cvpt_block_insert1", "cvpt_block_insert3", "cvpt_block_insert5"])
def test_cvpt_block(name: str) -> None:
    case = Case(name)
    spec = f"cvpt(tokens={case.hyper['num_prompts']}, position={POSITIONS[case.hyper['insert']]!r})"
    block = injected(parse(spec), case).blocks[0]
    case.compare(block, {"Prompt_Tokens": block.get_parameter("prompts")})


def test_cvpt() -> None:
    case = Case("cvpt_deep")
    vit = prompted_encoder(case, f"cvpt(tokens={case.hyper['num_prompts']})")
    compare(case, vit, {"Prompt_Tokens": [block.get_parameter("prompts") for block in vit.blocks]})


def test_cvpt_initialisation() -> None:
    vit = with_base_width("cvpt")
    ours = torch.stack([block.get_parameter("prompts") for block in vit.blocks])
    assert_official_init("cvpt_block_insert3", {"Prompt_Tokens": ours})


@pytest.mark.parametrize("name", ["e2vpt_deep", "e2vpt_deep_separate_kv"])
def test_e2vpt(name: str) -> None:
    case = Case(name)
    sizes = f"tokens={case.hyper['num_tokens_P']}, key_value_tokens={case.hyper['num_tokens_KV']}"
    vit = prompted_encoder(case, f"e2vpt({sizes}, shared={case.hyper['share_kv']})")
    tensors = deep(prompts_of(vit))
    for i, module in enumerate(m for m in vit.modules() if isinstance(m, KeyValuePrompted)):
        official = f"encoder.layer.{i}.attn.deep_QKV_embeddings"
        if module.values is None:
            tensors[official] = module.keys
        else:
            tensors |= {f"{official}_K": module.keys, f"{official}_V": module.values}
    compare(case, WithPrompts(vit), tensors)


def test_e2vpt_initialisation() -> None:
    vit = with_base_width("e2vpt")
    (first, *rest), keys = prompts_of(vit), next(m for m in vit.modules() if isinstance(m, KeyValuePrompted)).keys
    ours = {"prompt_embeddings": first, "deep_prompt_embeddings": torch.stack(rest)}
    assert_official_init("e2vpt_deep", ours | {"encoder.layer.0.attn.deep_QKV_embeddings": keys})


class MeanThenNorm(nn.Module):
    """Images -> the norm of the patches' mean."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit, self.norm = vit, vit.norm
        vit.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.vit.forward_features(x)[:, 1:].mean(1))


def gate_vpt_tensors(vit: VisionTransformer) -> dict[str, Tensor | list[Tensor]]:
    gated = vit.blocks[0]
    assert isinstance(gated, GatedPrompts)
    temperatures = [module.temperature for module in vit.modules() if isinstance(module, Tempered)]
    return {"prompt_embeddings": gated.prompts, "gate_logit": gated.gates, "temp": cast(list[Tensor], temperatures)}


@pytest.mark.parametrize("name", ["gatevpt_moco", "gatevpt_mae_img_pool"])
def test_gate_vpt(name: str) -> None:
    case = Case(name)
    vit = prompted_encoder(case, f"gate_vpt(tokens={case.hyper['num_tokens']})")
    compare(case, MeanThenNorm(vit) if name.endswith("img_pool") else vit, gate_vpt_tensors(vit))


def test_gate_vpt_initialisation() -> None:
    tensors = gate_vpt_tensors(with_base_width("gate_vpt"))
    temperatures = torch.stack(cast(list[Tensor], tensors.pop("temp")))
    assert_official_init("gatevpt_mae_img_pool", {**cast(dict[str, Tensor], tensors), "temp": temperatures})


def test_gate_vpt_keeps_temperatures_within_limits() -> None:
    vit, method = with_base_width("gate_vpt", depth=2), parse("gate_vpt")
    temperatures = cast(list[Tensor], gate_vpt_tensors(vit)["temp"])
    with torch.no_grad():
        temperatures[0].fill_(-1.0)
        temperatures[1].fill_(11.0)
    method.after_step(vit, 1, 1)
    assert torch.stack(temperatures).tolist() == [pytest.approx(0.01), 10.0]


def test_vapt() -> None:
    case = Case("vapt_deep")
    sizes = f"tokens={case.hyper['num_tokens']}, hidden={case.hyper['hidden_dim']}, kernel={case.hyper['kernel']}"
    vit = prompted_encoder(case, f"vapt({sizes})")
    compare(case, WithPrompts(vit), vapt_tensors(vit))


def vapt_tensors(vit: VisionTransformer) -> dict[str, Tensor | list[Tensor]]:
    adaptive = [module for module in vit.modules() if isinstance(module, AdaptivePrompts)]
    projector = adaptive[0].projector
    tensors: dict[str, Tensor | list[Tensor]] = {
        "prompt_embeddings": vit.blocks[0].get_parameter("prompts.tokens"),
        "deep_prompt_embeddings_mlp.block.0.weight": projector.down.weight,
        "deep_prompt_embeddings_mlp.block.2.weight": projector.up.weight,
    }
    for i, prompts in enumerate(adaptive):
        tensors |= {f"deep_prompt_norm.{i}.{name}": tensor for name, tensor in prompts.norm.named_parameters()}
        tensors[f"deep_prompt_downsample.{i}.conv.kernel"] = prompts.kernel
        tensors |= {f"deep_prompt_downsample.{i}.linear.{name}": t for name, t in prompts.mix.named_parameters()}
    return tensors


def test_vapt_initialisation() -> None:
    tensors = cast(dict[str, Tensor], vapt_tensors(with_base_width("vapt", depth=2)))
    kernel = "deep_prompt_downsample.0.conv.kernel"
    official = official_init("vapt_deep")
    assert tensors.pop(kernel).numel() == torch.Size(official.pop(kernel)["shape"]).numel()  # four normal draws
    assert_official_init(official, tensors)


def test_vapt_refuses_a_kernel_larger_than_the_grid() -> None:
    vit = VisionTransformer(img_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    with raises_naming(ValueError, "kernel=3", 2):
        parse("vapt(kernel=3)").inject(vit)


@pytest.mark.parametrize(
    ("spec", "facts"), [("vfpt(fraction=1.5)", ("fraction", "1.5")), ("vfpt(axes='all')", ("axes", "both", "channels"))]
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)


class BothStreams(nn.Module):
    """Images -> the features of images and prompts, [b, 2, d]: what training gives for a batch with both copies."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(self.vit.train()(torch.cat([x, x])).chunk(2), dim=1)


def sa2vp_tensors(vit: VisionTransformer) -> dict[str, Tensor | list[Tensor]]:
    two = vit.blocks[0]
    assert isinstance(two, TwoStreams)
    first, *rest = two.prompts
    named: dict[str, nn.Module] = {"embeddings.ppt_proj": first.up}
    for i, prompts in enumerate(rest):
        named[f"encoder.deep_proj.{i}"] = prompts.up
    for i, fusion in enumerate(two.fusions):
        parts = {"ffn_norm": fusion.norm, "ffn.fc1": fusion.down, "ffn.fc2": fusion.up}
        named |= {f"encoder.cross_attn.{i}.{name}": module for name, module in parts.items()}
    return {
        "embeddings.ppt": first.tokens,
        "encoder.deep_ppt": [prompts.tokens for prompts in rest],
        "encoder.cross_conv": cast(Tensor, two.factors),
        **weights_and_biases(named),
    }


def test_sa2vp() -> None:
    case = Case("sa2vp_encoder")
    vit = prompted_encoder(case, f"sa2vp(hidden={case.hyper['inner_dim']})")
    compare(case, BothStreams(vit), sa2vp_tensors(vit))
    with torch.no_grad():
        torch.testing.assert_close(vit.eval()(case["x"]), case["y"][:, 0], rtol=0, atol=1e-10)


def test_sa2vp_initialisation() -> None:
    ours = sa2vp_tensors(with_base_width("sa2vp"))
    official = official_init("sa2vp_encoder")
    stacked = {name: torch.stack(value) if isinstance(value, list) else value for name, value in ours.items()}
    assert_official_init("sa2vp_encoder", {name: stacked[name] for name in official}, bounded=False)


def test_window_of_sa2vp_is_cut_at_the_border() -> None:
    read = neighbourhood((2, 3), 1)
    assert read.int().sum(1).tolist() == [7, 4, 6, 4, 4, 6, 4]
    assert not read[1:, 0].any()
