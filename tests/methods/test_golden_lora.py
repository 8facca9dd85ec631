"""The LoRA family against numbers computed with official code."""

import math
from collections.abc import Mapping

import pytest
import torch
from golden_cases import MANIFEST, Case, attention, linear
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.dora import Decomposed
from vtab_peft.methods.lora import LowRank
from vtab_peft.methods.pissa import Principal
from vtab_peft.methods.updates import TransformedLinear, UpdatedLinear


def assert_starts_like(ours: Tensor, theirs: Mapping[str, float]) -> None:
    """The same shape, spread and extremes, up to what two draws of the same distribution differ by."""
    assert list(ours.shape) == theirs["shape"]
    assert bool((ours == 0).all()) == theirs["all_zero"]
    ours = ours.detach()
    measured = ours.mean(), ours.std(), ours.min(), ours.max()
    spread = max(theirs["std"], 1e-9)
    for value, name in zip(measured, ("mean", "std", "min", "max"), strict=True):
        assert abs(float(value) - theirs[name]) < 0.05 * spread, name


def test_lora() -> None:
    case, hyper = Case("lora"), MANIFEST["lora"]["hyper"]
    update = LowRank(case["frozen.weight"], hyper["r"], hyper["alpha"] / hyper["r"])
    module = UpdatedLinear(linear(case), ("o",), {"o": update})
    case.compare(module, {"lora_A.weight": update.a, "lora_B.weight": update.b})
    case.check_merged("merged.weight", module.merged().weight)


@pytest.mark.parametrize("name", ["lora", "rslora"])
def test_scale_of_each_entry_is_the_one_of_its_paper(vit: VisionTransformer, name: str) -> None:
    parse(f"{name}(rank=4, alpha=9.0)").inject(vit)
    scales = {module.scale for module in vit.modules() if isinstance(module, LowRank)}
    assert scales == {9 / 4 if name == "lora" else 9 / 2}


def test_rslora() -> None:
    case, hyper = Case("rslora"), MANIFEST["rslora"]["hyper"]
    update = LowRank(case["frozen.weight"], hyper["r"], hyper["alpha"] / math.sqrt(hyper["r"]))
    module = UpdatedLinear(linear(case), ("o",), {"o": update})
    case.compare(module, {"lora_A.weight": update.a, "lora_B.weight": update.b})
    case.check_merged("merged.weight", module.merged().weight)


def test_lora_on_query_and_key() -> None:
    case, rank = Case("adapter_plus_repo_lora_attn"), MANIFEST["adapter_plus_repo_lora_attn"]["hyper"]["dim"]
    module = attention(case)
    updates = {site: LowRank(torch.empty(48, 48), rank, 1.0) for site in ("q", "k")}
    module.qkv = UpdatedLinear(module.qkv, ("q", "k", "v"), updates)
    factors = {f"adapters.{site}.bottleneck.1.weight": update.a for site, update in updates.items()}
    factors |= {f"adapters.{site}.bottleneck.4.weight": update.b for site, update in updates.items()}
    case.compare(module, factors)


def test_lora_on_the_fused_qkv() -> None:
    case, hyper = Case("noah_lora_attn"), MANIFEST["noah_lora_attn"]["hyper"]
    rank, spare = hyper["r"], hyper["super_r"] - hyper["r"]  # NOAH uses the first rows of larger factors
    module, update = attention(case), LowRank(torch.empty(3 * 48, 48), rank, 1.0).double()
    module.qkv = UpdatedLinear(module.qkv, ("qkv",), {"qkv": update})
    with torch.no_grad():
        update.a.copy_(case["param.LoRA_a.weight"][:rank])
        update.b.copy_(case["param.LoRA_b.weight"][:, :rank])
    x = case["x"].clone().requires_grad_(True)
    y = module(x)
    (y * case["cotangent"]).sum().backward()
    assert update.a.grad is not None
    assert update.b.grad is not None
    down, up = nn.functional.pad(update.a.grad, (0, 0, 0, spare)), nn.functional.pad(update.b.grad, (0, spare))
    case.check(y, x, {"LoRA_a.weight": down, "LoRA_b.weight": up})
    module.qkv = module.qkv.merged()
    torch.testing.assert_close(module(case["x"]), case["y"], rtol=0, atol=1e-10)


def test_fused_lora_drops_inputs_and_only_in_training(vit: VisionTransformer) -> None:
    parse("lora_fused(dropout=0.5)").inject(vit)
    update = vit.blocks[0].attn.qkv.updates["qkv"]
    nn.init.ones_(update.b)
    x = torch.ones(1, 1, 32)
    assert torch.equal(update.eval()(x), update(x))
    assert not torch.equal(update.train()(x), update(x))


@pytest.mark.parametrize(("case", "width"), [("lora", 768), ("noah_lora_attn", 3 * 768)])
def test_lora_starts_as_published(case: str, width: int) -> None:
    torch.manual_seed(0)
    update = LowRank(torch.empty(width, 768), rank=8, scale=1.0)
    start = {name.lower(): value for name, value in MANIFEST[case]["official_init_d768"].items()}
    assert_starts_like(update.a, start["lora_a.weight"])
    assert_starts_like(update.b, start["lora_b.weight"])


def test_dora() -> None:
    case, hyper = Case("dora"), MANIFEST["dora"]["hyper"]
    transform = Decomposed(case["frozen.weight"], hyper["r"], hyper["alpha"] / hyper["r"])
    module = TransformedLinear(linear(case), ("o",), {"o": transform})
    case.compare(
        module,
        {
            "lora_A.weight": transform.direction.a,
            "lora_B.weight": transform.direction.b,
            "lora_magnitude_vector.weight": transform.magnitude,
        },
    )
    merged = module.merged()
    case.check_merged("merged.weight", merged.weight)
    case.check_merged("merged.bias", merged.bias)


def test_dora_starts_with_the_lengths_of_the_rows() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.0, -2.0], [5.0, 12.0]])
    assert Decomposed(weight, rank=2, scale=1.0).magnitude.tolist() == [5.0, 2.0, 13.0]


def principal(case: Case) -> Principal:
    """Its singular value decomposition in float32, as that of the case."""
    hyper = MANIFEST["pissa"]["hyper"]
    return Principal(case["frozen.weight"].float(), hyper["r"], hyper["alpha"] / hyper["r"])


def test_pissa_starts_with_the_published_factors() -> None:
    case = Case("pissa")
    update = principal(case).double()
    ours, theirs = update.b @ update.a, case["param.lora_B.weight"] @ case["param.lora_A.weight"]
    close = {"rtol": 0, "atol": 1e-5}  # the case was computed in float32
    torch.testing.assert_close(ours, theirs, **close)  # their product, as a singular pair may change its sign
    torch.testing.assert_close(case["frozen.weight"] - update.scale * ours, case["frozen.weight_residual"], **close)
    torch.testing.assert_close(update.a.norm(dim=1), case["param.lora_A.weight"].norm(dim=1), **close)
    assert torch.equal(update.delta(), torch.zeros_like(update.delta()))


def test_pissa() -> None:
    case = Case("pissa")
    module = UpdatedLinear(linear(case), ("o",), {"o": (update := principal(case))})
    factors = {"lora_A.weight": update.a, "lora_B.weight": update.b}
    case.compare(module, factors, y_atol=1e-5, grad_atol=1e-5)  # the case was computed in float32
    case.check_merged("merged.weight", module.merged().weight)


def test_pissa_trains_the_product_on_a_frozen_residual() -> None:
    case = Case("pissa")
    update = principal(case).double()
    residual = case["frozen.weight"] - update.scale * update.b0 @ update.a0
    with torch.no_grad():
        update.a += torch.randn(update.a.shape, generator=torch.Generator().manual_seed(0))
        update.b *= 2
    torch.testing.assert_close(case["frozen.weight"] + update.delta(), residual + update.scale * update.b @ update.a)


@pytest.mark.parametrize(
    ("spec", "says"),
    [("pissa(alpha=0.0)", "alpha must be positive"), ("lora_fused(rank=0)", "rank must be at least 1")],
)
def test_wrong_hyperparameters_are_refused(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(spec)


def test_pissa_has_no_more_triplets_than_a_weight_has(vit: VisionTransformer) -> None:
    with pytest.raises(ValueError, match="rank=33 is more than the 32 singular values"):
        parse("pissa(rank=33)").inject(vit)
