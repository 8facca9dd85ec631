"""Compare adapters made of products, and the bypass that reads the blocks, with numbers of official code."""

from typing import cast

import pytest
import torch
from golden_blocks import assert_official_init, encoder, one_block_vit
from golden_cases import Case, official_init
from raises import raises_naming
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.blocks import Residual
from vtab_peft.methods.compacter import HypercomplexLinear
from vtab_peft.methods.lorand import ThinProducts
from vtab_peft.methods.res_tuning import Bypass


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
