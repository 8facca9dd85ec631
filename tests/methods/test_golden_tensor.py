"""Compare FacT and CaRA, which share factors between layers, with numbers computed with official code."""

from typing import cast

import pytest
import timm
import torch
from golden_blocks import assert_official_init, assert_std, inject_random, trained_params
from golden_cases import Case, official_init
from raises import raises_naming
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import Method, parse
from vtab_peft.methods.base import check_backbone
from vtab_peft.methods.cara import CPUpdate, Factors
from vtab_peft.methods.fact import FactorUpdate, TensorTrain, Tucker
from vtab_peft.methods.updates import Update

PARTS = {"attn": {"q": "qkv", "k": "qkv", "v": "qkv", "o": "proj"}, "mlp": {"fc1": "fc1", "fc2": "fc2"}}


def vit_of(depth: int = 3, d: int = 48, heads: int = 4, mlp_ratio: float = 4) -> VisionTransformer:
    """Return a frozen ViT of `depth` blocks."""
    vit = VisionTransformer(16, 4, embed_dim=d, depth=depth, num_heads=heads, mlp_ratio=mlp_ratio, num_classes=0)
    return vit.eval().requires_grad_(False)


def depth_of(case: Case) -> int:
    """Return the number of layers whose columns the shared factor of the case holds; 3 if it shares none."""
    if "param.FacTp" in case:
        return case["param.FacTp"].shape[1] // (4 + 2 * (case.hidden // case.width))
    return case.hyper.get("layers", 3)


def with_method(method: Method, case: Case, part: str) -> nn.Module:
    """Return the attention or MLP of the case in layer 1 of a model with the method injected."""
    vit = vit_of(depth_of(case), case.width, case.heads, case.mlp_ratio)
    module = vit.blocks[case.hyper.get("layer_index", 1)].get_submodule(part)
    module.load_state_dict(case.part(f"frozen.{part}."))
    method.inject(vit)
    return module


def updates(module: nn.Module, part: str) -> dict[str, Update]:
    return {site: cast(Update, module.get_submodule(f"{map}.updates.{site}")) for site, map in PARTS[part].items()}


def vit_base_with(spec: str) -> VisionTransformer:
    """Return a ViT-B/16 on the meta device with the method injected."""
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0).requires_grad_(False)
    torch.manual_seed(0)
    parse(spec).inject(vit)
    return vit


FACT_NAMES = {"o": "proj"}
"""Official names of sites that differ from ours."""


def fact_shared(update: FactorUpdate) -> dict[str, Tensor]:
    return {"FacTu.weight": update.shared.u, "FacTv.weight": update.shared.v}


def tensor_train_cores(found: dict[str, Update], part: str) -> dict[str, Tensor]:
    return {
        f"{part}.{FACT_NAMES.get(site, site)}_FacTs.weight": cast(TensorTrain, update).s
        for site, update in found.items()
    }


def method_of(case: Case) -> Method:
    return parse(f"{case.name.rpartition('_')[0]}(rank={case.hyper['r']}, scale={case.hyper['s']})")


def check_deltas(case: Case, found: dict[str, Update]) -> None:
    for site, update in found.items():
        case.check_merged(f"delta.{FACT_NAMES.get(site, site)}", update.delta())


@pytest.mark.parametrize(("name", "part"), [("fact_tt_attn", "attn"), ("fact_tt_mlp", "mlp")])
def test_fact_tensor_train(name: str, part: str) -> None:
    case = Case(name)
    module = with_method(method_of(case), case, part)
    found = updates(module, part)
    shared = fact_shared(cast(FactorUpdate, next(iter(found.values()))))
    case.compare(module, {**shared, **tensor_train_cores(found, part)})
    check_deltas(case, found)


@pytest.mark.parametrize(("name", "part"), [("fact_tk_attn", "attn"), ("fact_tk_mlp", "mlp")])
def test_fact_tucker(name: str, part: str) -> None:
    """The released code reads the core interleaved, in layer 1 here."""
    case = Case(name)
    module = with_method(method_of(case), case, part)
    found = updates(module, part)
    any_update = cast(Tucker, next(iter(found.values())))
    case.compare(module, {**fact_shared(any_update), "FacTc": any_update.shared.c, "FacTp": any_update.shared.p})
    check_deltas(case, found)


def test_fact_tensor_train_initialisation() -> None:
    block = vit_base_with("fact_tt").blocks[0]
    found = {part: updates(block.get_submodule(part), part) for part in PARTS}
    ours = fact_shared(cast(FactorUpdate, found["attn"]["q"]))
    for part in PARTS:
        ours |= {f"blocks.0.{name}": core for name, core in tensor_train_cores(found[part], part).items()}
    assert_official_init("fact_tt_attn", ours)


def test_fact_tucker_initialisation() -> None:
    update = cast(Tucker, updates(vit_base_with("fact_tk").blocks[0].get_submodule("mlp"), "mlp")["fc1"])
    ours = {**fact_shared(update), "FacTc": update.shared.c, "FacTp": update.shared.p}
    assert_official_init("fact_tk_attn", ours)


def test_fact_tucker_uses_every_column_of_p_once() -> None:
    """A layer has twelve: q, k, v, o, four of fc1, four of fc2."""
    vit = vit_of()
    parse("fact_tk").inject(vit)
    slices = [m.columns for m in vit.modules() if isinstance(m, Tucker)]
    assert [(s.start, s.stop) for s in slices[:6]] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 8), (8, 12)]
    assert [s.start for s in slices[6::6]] == [12, 24]
    assert slices[-1].stop == 36


def cara_names(factors: Factors, biases: dict[str, str]) -> dict[str, Tensor]:
    names = {f"CP_{name.upper()}": parameter for name, parameter in factors.named_parameters() if "." not in name}
    return names | {theirs: factors.biases[site] for theirs, site in biases.items()}


CARA_BIASES = {"attn": {"CP_bias1": "o"}, "mlp": {"CP_bias2": "fc1", "CP_bias3": "fc2"}}


@pytest.mark.parametrize(("name", "part"), [("cara_attn", "attn"), ("cara_mlp", "mlp")])
def test_cara(name: str, part: str) -> None:
    case = Case(name)
    module = with_method(method_of(case), case, part)
    factors = cast(CPUpdate, next(iter(updates(module, part).values()))).factors
    names = cara_names(factors, CARA_BIASES[part])
    case.compare(module, {name: ours for name, ours in names.items() if f"param.{name}" in case})


def test_cara_initialisation() -> None:
    update = cast(CPUpdate, updates(vit_base_with("cara").blocks[0].get_submodule("attn"), "attn")["q"])
    ours = cara_names(update.factors, CARA_BIASES["attn"] | CARA_BIASES["mlp"])
    official = official_init("cara_attn")
    for name in ("CP_A1", "CP_P1"):  # normal distributions have no bounds to compare
        assert_std(ours.pop(name), official[name])
    for name in ("CP_A3", "CP_A4", "CP_P3"):
        factor = ours.pop(name)
        short = factor if len(factor) < factor.shape[1] else factor.T
        torch.testing.assert_close(short @ short.T, torch.eye(len(short)), rtol=0, atol=1e-5)
    assert_official_init({name: official[name] for name in ours}, ours)


def test_cara_drops_entries_of_the_dense_update_in_training() -> None:
    vit = vit_of().double()
    torch.manual_seed(0)
    parse("cara(rank=4, scale=2.0, dropout=0.25)").inject(vit)
    update = cast(CPUpdate, vit.get_submodule("blocks.2.mlp.fc1.updates.fc1")).double()
    nn.init.normal_(update.factors.p2)
    nn.init.normal_(update.factors.biases["fc1"])
    weight, bias = update.delta(), cast(Tensor, update.bias_delta())
    x = torch.eye(48, dtype=torch.float64)
    torch.testing.assert_close(update.eval()(x), weight.T + bias)
    sparse = (update.train()(x) - bias).T
    kept = sparse.abs() > weight.abs() / 2
    torch.testing.assert_close(sparse, torch.where(kept, weight * 4 / 3, 0))
    assert float(kept.double().mean()) == pytest.approx(0.75, abs=0.02)  # 9216 entries, 4 standard deviations


@pytest.mark.parametrize("spec", ["fact_tt", "fact_tk", "cara"])
@pytest.mark.parametrize("ratio", [1, 2])
def test_another_mlp_ratio(spec: str, ratio: int) -> None:
    """Check the parameter count, that all linear layers change, and that the merged model computes the same."""
    vit, method = vit_of(mlp_ratio=ratio), parse(spec)
    expected = method.expected_params(vit)
    plain = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    inject_random(method, vit, scale=0.3)
    vit.double()
    assert trained_params(vit) == expected
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = vit(images)
    method.merge(vit)
    torch.testing.assert_close(vit(images), before)
    changed = {name for name, tensor in vit.state_dict().items() if not torch.equal(tensor, plain[name])}
    weights = {
        f"blocks.{i}.{path}.weight" for i in range(3) for path in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    assert {name for name in changed if "weight" in name} == weights


@pytest.mark.parametrize("spec", ["fact_tt", "fact_tk", "cara"])
def test_mlp_width_must_be_a_multiple_of_the_width(spec: str) -> None:
    with raises_naming(ValueError, 48, 120):
        check_backbone(parse(spec), vit_of(mlp_ratio=2.5))


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("fact_tt(rank=0)", ("rank", "0")),
        ("fact_tk(rank=0)", ("rank", "0")),
        ("cara(rank=0)", ("rank", "0")),
        ("cara(init_std=-0.1)", ("init_std", "-0.1")),
    ],
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)
