"""Compare adapters made of products, and the bypass that reads the blocks, with numbers of official code."""

from typing import cast

import pytest
import torch
from golden_blocks import assert_official_init, encoder, one_block_vit
from golden_cases import Case, official_init
from raises import raises_naming
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.blocks import Residual
from vtab_peft.methods.compacter import HypercomplexLinear
from vtab_peft.methods.lorand import ThinProducts
from vtab_peft.methods.res_tuning import Bypass
from vtab_peft.methods.synqt import Refined, Synthesis, SynthesisedQueries


def hypercomplex(case: Case, at: str) -> HypercomplexLinear:
    left, right = case[f"param.{at}W_left"], case[f"param.{at}W_right"]
    rule = nn.Parameter(case["param.phm_rule"].clone())
    n, inputs, rank = left.shape
    return HypercomplexLinear(rule, n * inputs, n * right.shape[2], rank)


def hypercomplex_names(module: HypercomplexLinear, at: str) -> dict[str, Tensor]:
    return {f"{at}W_left": module.left, f"{at}W_right": module.right, f"{at}b": module.bias}


@pytest.mark.parametrize("name", ["compacter_phm_linear", "compacter_phm_linear_rank2"])
def test_hypercomplex_linear_map(name: str) -> None:
    case = Case(name)
    module = hypercomplex(case, "")
    case.compare(module, {**hypercomplex_names(module, ""), "phm_rule": module.rule})


def test_compacter_adapter() -> None:
    case = Case("compacter_adapter")
    down, up = hypercomplex(case, "down_sampler."), hypercomplex(case, "up_sampler.")
    up.rule = down.rule
    names = hypercomplex_names(down, "down_sampler.") | hypercomplex_names(up, "up_sampler.")
    case.compare(nn.Sequential(down, nn.GELU("tanh"), up), {**names, "phm_rule": down.rule})


def test_compacter_initialisation() -> None:
    torch.manual_seed(0)
    rule = nn.Parameter(torch.zeros(4, 4, 4))
    ours = hypercomplex_names(HypercomplexLinear(rule, 768, 32, 1), "down_sampler.")
    ours |= hypercomplex_names(HypercomplexLinear(rule, 32, 768, 1), "up_sampler.")
    assert_official_init("compacter_adapter", ours)


def test_compacter_shares_one_rule() -> None:
    vit = one_block_vit()
    torch.manual_seed(0)
    parse("compacter").inject(vit)
    maps = [module for module in vit.modules() if isinstance(module, HypercomplexLinear)]
    assert len(maps) == 4
    assert len({id(module.rule) for module in maps}) == 1
    assert 0.5e-4 < float(maps[0].rule.detach().std()) < 2e-4


def test_compacter_refuses_widths_that_its_terms_do_not_divide() -> None:
    with raises_naming(ValueError, "terms=4", 30):
        HypercomplexLinear(nn.Parameter(torch.zeros(4, 4, 4)), 30, 8, 1)


def thin_names(module: nn.Module, at: str) -> dict[str, Tensor]:
    assert isinstance(module, ThinProducts)
    names = {"A": module.p, "g": module.k, "B": module.q}
    split = {f"{at}.param_dict.{name}{i}": t[i] for name, t in names.items() for i in range(len(t))}
    return {f"{at}.bias": module.bias, **split}


@pytest.mark.parametrize("name", ["lorand_module", "lorand_module_factor4"])
def test_lorand(name: str) -> None:
    case = Case(name)
    sizes = case.width // case.hyper["factor"], case.hyper["num_branch"], case.hyper["kernel_dim"]
    inner, branches, kernel = sizes
    down = ThinProducts(case.width, inner, branches, kernel).double()
    up = ThinProducts(inner, case.width, branches, kernel).double()
    tensors = thin_names(down, "project1") | thin_names(up, "project2")
    with torch.no_grad():
        for official, part in tensors.items():
            part.copy_(case[f"param.{official}"])
    y, x = case.backward(Residual(nn.Sequential(down, nn.GELU(), up)))
    gradients = {}
    for at, module in (("project1", down), ("project2", up)):
        gradients[f"{at}.bias"] = module.bias.grad
        for letter, tensor in {"A": module.p, "g": module.k, "B": module.q}.items():
            gradients |= {f"{at}.param_dict.{letter}{i}": g for i, g in enumerate(cast(Tensor, tensor.grad))}
    case.check(y, x, gradients)


def test_lorand_initialisation() -> None:
    torch.manual_seed(0)
    ours = thin_names(ThinProducts(768, 384, 4, 8), "project1") | thin_names(ThinProducts(384, 768, 4, 8), "project2")
    official = official_init("lorand_module")
    assert_official_init(official, {name: ours[name] for name in official}, bounded=False)


def bypass_names(bypass: Bypass) -> dict[str, Tensor]:
    names = {}
    for i in range(len(bypass.lateral)):
        for kind in ("lateral", "vertical"):
            tuner = getattr(bypass, kind)[i]
            at = f"bypass_blocks.{i}.{kind}_tuner.tuner"
            names |= {f"{at}.ln1.{name}": t for name, t in tuner.down.named_parameters()}
            names |= {f"{at}.ln2.{name}": t for name, t in tuner.up.named_parameters()}
    return names


def test_res_tuning_bypass() -> None:
    case = Case("restuning_bypass")
    vit = encoder(case, tuple(case["x"].shape[2:]), case["frozen.patch_embed.proj.weight"].shape[-1])
    vit.load_state_dict(case.part("frozen."))
    parse(f"res_tuning(bottleneck={case.hyper['adapter_length']})").inject(vit)
    case.arrays["grad_x"] = torch.zeros_like(case["x"])  # no gradient passes the backbone
    case.compare(vit, bypass_names(cast(Bypass, vit.blocks[0])))


def test_res_tuning_initialisation() -> None:
    torch.manual_seed(0)
    bypass = Bypass(nn.Sequential(nn.Identity()), 768, 32)
    names = {name.removeprefix("bypass_blocks.0.lateral_tuner."): t for name, t in bypass_names(bypass).items()}
    official = official_init("restuning_bypass")
    assert_official_init(official, {name: names[name] for name in official}, bounded=False)


def refined_names(module: nn.Module, at: str) -> dict[str, Tensor]:
    assert isinstance(module, Refined)
    named = {f"{at}.mlp.fc1.{name}": tensor for name, tensor in module.down.named_parameters()}
    return named | {f"{at}.mlp.fc2.{name}": tensor for name, tensor in module.up.named_parameters()}


def synthesis_names(module: nn.Module, at: str) -> dict[str, Tensor]:
    assert isinstance(module, Synthesis)
    names: dict[str, Tensor] = {f"{at}attn_scale": module.attn_scale, f"{at}ffn_scale": module.ffn_scale}
    maps = {"attn.q_proj": module.q, "attn.k_proj": module.k, "attn.v_proj": module.v, "attn.proj": module.proj}
    for name, refined in {**maps, "mlp": module.mlp}.items():
        names |= refined_names(refined, f"{at}{name}")
    norms = {"attn.q_norm": module.q_norm, "attn.kv_norm": module.kv_norm, "norm1": module.norm1, "norm2": module.norm2}
    return names | {f"{at}{name}.{kind}": t for name, norm in norms.items() for kind, t in norm.named_parameters()}


def synqt_names(module: nn.Module) -> dict[str, Tensor]:
    assert isinstance(module, SynthesisedQueries)
    names: dict[str, Tensor] = {"q": module.queries, "feat_scale": module.feat_scale}
    for i, (refine, synthesis) in enumerate(zip(module.refine, module.synthesis, strict=True)):
        names |= refined_names(refine, f"prompt_ffn.{i}") | synthesis_names(synthesis, f"qsm_block.{i}.")
    ends = {"out_combine.get_weight.fc1": module.weigh, "out_norm": module.out_norm, "head_norm": module.head_norm}
    names |= {f"{name}.{kind}": t for name, end in ends.items() for kind, t in end.named_parameters()}
    return names | refined_names(module.mlp, "mlp")


def test_synqt_synthesis_block() -> None:
    case = Case("synqt_qsm_block")
    module = Synthesis(case.width, 1.0, 1.0, 0.0)
    case.compare(module, synthesis_names(module, ""))


def test_synqt() -> None:
    case = Case("synqt_encoder")
    vit = encoder(case, tuple(case["x"].shape[2:]), case["frozen.patch_embed.proj.weight"].shape[-1])
    frozen = case.part("frozen.")
    vit.load_state_dict(frozen | {name: t for name, t in vit.state_dict().items() if name not in frozen})
    parse(f"synqt(tokens={case.hyper['token_nums']})").inject(vit)
    unused = {name: torch.zeros_like(case[f"param.{name}"]) for name in case.part("param.") if is_unused(name)}
    case.compare(vit, synqt_names(vit.blocks[0]) | unused)


def is_unused(name: str) -> bool:
    """Return True for tensors of the release that no output depends on; we leave them out."""
    return name.startswith("pre_norm.") or name == "out_combine.weight"


def test_synqt_initialisation() -> None:
    vit = VisionTransformer(num_heads=12, mlp_ratio=0.1, num_classes=0)
    torch.manual_seed(0)
    parse("synqt").inject(vit)
    ours = synqt_names(vit.blocks[0])
    official = {name: row for name, row in official_init("synqt_encoder").items() if not is_unused(name)}
    assert_official_init(official, {name: ours[name] for name in official}, bounded=False)
