"""Compare the LoRA family with numbers computed with official code."""

import math
from dataclasses import replace
from typing import cast

import pytest
import torch
from golden_blocks import assert_official_init
from golden_cases import Case, attention, linear
from raises import raises_naming
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from vtab_peft.benchmark.engine.optim import make_optimizer
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.methods import parse
from vtab_peft.methods.dora import Decomposed
from vtab_peft.methods.lora import LoRAPlus, LowRank
from vtab_peft.methods.pissa import Principal
from vtab_peft.methods.updates import TransformedLinear, UpdatedLinear


@pytest.mark.parametrize("name", ["lora", "rslora"])
def test_lora_and_rslora(name: str) -> None:
    case = Case(name)
    rank, alpha = case.hyper["r"], case.hyper["alpha"]
    update = LowRank(case["frozen.weight"], rank, alpha / (rank if name == "lora" else math.sqrt(rank)))
    module = UpdatedLinear(linear(case), ("o",), {"o": update})
    case.compare(module, {"lora_A.weight": update.a, "lora_B.weight": update.b})
    case.check_merged("merged.weight", module.merged().weight)


def test_lora_on_query_and_value_of_loralib() -> None:
    case = Case("loralib_merged_linear")
    parts, width = case.hyper["parts"], case.width
    updates = {
        part: LowRank(torch.empty(width, width), case.hyper["r"], case.hyper["alpha"] / case.hyper["r"])
        for part in "qv"
    }
    module = UpdatedLinear(linear(case), parts, updates)
    case.compare_through(
        module,
        lambda t: {
            f"updates.{part}.{ours}": factor
            for ours, theirs in (("a", "lora_A"), ("b", "lora_B"))
            for part, factor in zip("qv", t[theirs].chunk(2), strict=True)
        },
    )


def test_lora_plus_steps_like_the_authors_optimizer() -> None:
    case = Case("loraplus_official")
    hyper = case.hyper
    recipe = replace(RECIPES["smoke"], optimizer="adamw", lr=hyper["lr"], weight_decay=hyper["weight_decay"])
    method = parse(f"lora_plus(rank={hyper['r']}, alpha={hyper['alpha']}, ratio={hyper['ratio']})")
    update = cast(LowRank, cast(LoRAPlus, method).make_update(case["frozen.weight"], None)).double()
    module = UpdatedLinear(linear(case), ("o",), {"o": update})
    factors = {"lora_A": update.a, "lora_B": update.b}
    for name, ours in factors.items():
        ours.data = case[f"param.{name}"].clone()
    optimizer = make_optimizer(module, recipe, method.lr_factors(module))
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * group["lr_factor"]
    for step in range(hyper["steps"]):
        optimizer.zero_grad()
        y = module(case["x"])
        nn.functional.mse_loss(y, case["target"]).backward()
        if step == 0:
            torch.testing.assert_close(y.detach(), case["y"], rtol=0, atol=1e-10)
            for name, ours in factors.items():
                torch.testing.assert_close(ours.grad, case[f"grad.{name}"], rtol=0, atol=1e-8)
        optimizer.step()
    for name, ours in factors.items():
        torch.testing.assert_close(ours.detach(), case[f"after.{name}"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["lora", "rslora"])
def test_scale_is_that_of_the_paper(vit: VisionTransformer, name: str) -> None:
    parse(f"{name}(rank=4, alpha=9.0)").inject(vit)
    scales = {module.scale for module in vit.modules() if isinstance(module, LowRank)}
    assert scales == {9 / 4 if name == "lora" else 9 / 2}


def test_lora_on_query_and_key() -> None:
    case = Case("adapter_plus_repo_lora_attn")
    module, weight = attention(case), torch.empty(case.width, case.width)
    updates = {site: LowRank(weight, case.hyper["dim"], 1.0) for site in ("q", "k")}
    module.qkv = UpdatedLinear(module.qkv, ("q", "k", "v"), updates)
    factors = {f"adapters.{site}.bottleneck.1.weight": update.a for site, update in updates.items()}
    factors |= {f"adapters.{site}.bottleneck.4.weight": update.b for site, update in updates.items()}
    case.compare(module, factors)


def test_lora_on_the_fused_qkv() -> None:
    case = Case("noah_lora_attn")
    rank, spare = case.hyper["r"], case.hyper["super_r"] - case.hyper["r"]  # NOAH uses the first rows of larger factors
    module, update = attention(case), LowRank(torch.empty(3 * case.width, case.width), rank, 1.0).double()
    module.qkv = UpdatedLinear(module.qkv, ("qkv",), {"qkv": update})
    with torch.no_grad():
        update.a.copy_(case["param.LoRA_a.weight"][:rank])
        update.b.copy_(case["param.LoRA_b.weight"][:, :rank])
    y, x = case.backward(module)
    assert update.a.grad is not None
    assert update.b.grad is not None
    down, up = nn.functional.pad(update.a.grad, (0, 0, 0, spare)), nn.functional.pad(update.b.grad, (0, spare))
    case.check(y, x, {"LoRA_a.weight": down, "LoRA_b.weight": up})
    module.qkv = module.qkv.merged()
    case.check_output(module)


def test_fused_lora_drops_inputs_and_only_in_training(vit: VisionTransformer) -> None:
    parse("lora_fused(dropout=0.5)").inject(vit)
    update = vit.blocks[0].attn.qkv.updates["qkv"]
    nn.init.ones_(update.b)
    x = torch.ones(1, 1, 32)
    assert torch.equal(update.eval()(x), update(x))
    assert not torch.equal(update.train()(x), update(x))


@pytest.mark.parametrize(("case", "width"), [("lora", 768), ("noah_lora_attn", 3 * 768)])
def test_lora_initialisation(case: str, width: int) -> None:
    torch.manual_seed(0)
    update = LowRank(torch.empty(width, 768), rank=8, scale=1.0)
    a, b = ("lora_A.weight", "lora_B.weight") if case == "lora" else ("LoRA_a.weight", "LoRA_b.weight")
    assert_official_init(case, {a: update.a, b: update.b})


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("dora", ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector.weight")),
        ("dora_official", ("lora_A", "lora_B", "weight_m_wdecomp")),
    ],
)
def test_dora(name: str, names: tuple[str, ...]) -> None:
    case = Case(name)
    transform = Decomposed(case["frozen.weight"], case.hyper["r"], case.hyper["alpha"] / case.hyper["r"])
    module = TransformedLinear(linear(case), ("o",), {"o": transform})
    ours = (transform.direction.a, transform.direction.b, transform.magnitude)
    case.compare(module, dict(zip(names, ours, strict=True)))
    if name == "dora":
        case.check_merged_linear("merged", module.merged())


def test_dora_magnitudes_start_as_row_norms() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.0, -2.0], [5.0, 12.0]])
    assert Decomposed(weight, rank=2, scale=1.0).magnitude.tolist() == [5.0, 2.0, 13.0]


def principal(case: Case) -> Principal:
    """Return our update, with its singular value decomposition in float32 as in the case."""
    return Principal(case["frozen.weight"].float(), case.hyper["r"], case.hyper["alpha"] / case.hyper["r"])


@pytest.mark.parametrize("name", ["pissa", "pissa_official"])
def test_pissa_initialisation(name: str) -> None:
    case = Case(name)
    update = principal(case).double()
    ours, theirs = update.b @ update.a, case["param.lora_B.weight"] @ case["param.lora_A.weight"]
    close = {"rtol": 0, "atol": 1e-5}  # the case was computed in float32
    torch.testing.assert_close(ours, theirs, **close)  # their product, as a singular pair may change its sign
    torch.testing.assert_close(case["frozen.weight"] - update.scale * ours, case["frozen.weight_residual"], **close)
    torch.testing.assert_close(update.a.norm(dim=1), case["param.lora_A.weight"].norm(dim=1), **close)
    assert torch.equal(update.delta(), torch.zeros_like(update.delta()))


@pytest.mark.parametrize("name", ["pissa", "pissa_official"])
def test_pissa(name: str) -> None:
    case = Case(name)
    module = UpdatedLinear(linear(case), ("o",), {"o": (update := principal(case))})
    factors = {"lora_A.weight": update.a, "lora_B.weight": update.b}
    case.compare(module, factors, y_atol=1e-5, grad_atol=1e-5)  # the case was computed in float32
    case.check_merged("merged.weight", module.merged().weight)


def test_pissa_adds_the_product_to_a_frozen_residual() -> None:
    case = Case("pissa")
    update = principal(case).double()
    residual = case["frozen.weight"] - update.scale * update.b0 @ update.a0
    with torch.no_grad():
        update.a += torch.randn(update.a.shape, generator=torch.Generator().manual_seed(0))
        update.b *= 2
    torch.testing.assert_close(case["frozen.weight"] + update.delta(), residual + update.scale * update.b @ update.a)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [("pissa(alpha=0.0)", ("alpha", "0.0")), ("lora_fused(rank=0)", ("rank", "0"))],
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)


def test_pissa_rank_above_the_width_is_refused(vit: VisionTransformer) -> None:
    with raises_naming(ValueError, "rank=33", 32):
        parse("pissa(rank=33)").inject(vit)
