"""Compare adapters with numbers computed with official code."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from golden_blocks import (
    Alone,
    assert_official_init,
    base_with,
    injected,
    one_block_vit,
    trained_params,
    vit_for,
    weights_and_biases,
)
from golden_cases import Case
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.adapters import AdapterParallel, Bottleneck, ReadsResidual
from vtab_peft.methods.adaptformer import ParallelBottleneck
from vtab_peft.methods.blocks import Residual


def adaptformer_names(adapter: ParallelBottleneck) -> dict[str, Tensor]:
    return weights_and_biases({"down_proj": adapter.down, "up_proj": adapter.up})


def beside_mlp(vit: VisionTransformer) -> nn.Module:
    return vit.get_submodule("blocks.0.1.beside")


def test_houlsby_with_the_authors_activation() -> None:
    case = Case("adapter_houlsby_official")
    vit = injected(parse(f"adapter_houlsby(bottleneck={case.hyper['bottleneck']}, activation='tanh gelu')"), case)
    branches = {"attention": "drop_path1", "ffn": "drop_path2"}

    def ours(t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            f"0.{path}.1.adapter.{projection}.{kind}": t[f"{where}.adapters.{name}{number}"].T.squeeze()
            for where, path in branches.items()
            for number, projection in ((1, "down"), (2, "up"))
            for kind, name in (("weight", "weights"), ("bias", "biases"))
        }

    case.compare_through(vit.blocks, ours)


def test_released_form_of_pfeiffer() -> None:
    case = Case("adapter_pfeiffer_official")
    vit = injected(parse(f"adapter_pfeiffer(bottleneck={case.hyper['bottleneck']}, form='released')"), case)
    adapter = next(module for module in vit.modules() if isinstance(module, Bottleneck))
    case.compare(vit.blocks, weights_and_biases({"adapter_down.0": adapter.down, "adapter_up": adapter.up}))


def test_parallel_adapter_with_relu() -> None:
    case = Case("adapter_parallel_official")
    method = cast(AdapterParallel, parse(f"adapter_parallel(bottleneck={case.hyper['bottleneck']}, activation='relu')"))
    adapter = cast(Bottleneck, method.adapter(case.width))
    case.compare(adapter, weights_and_biases({"down_proj": adapter.down, "up_proj": adapter.up}))


def test_adaptformer_block() -> None:
    case = Case("adaptformer_block")
    vit = injected(parse(f"adaptformer(bottleneck={case.hyper['bottleneck']}, scale={case.hyper['scale']})"), case)
    adapter = cast(ParallelBottleneck, beside_mlp(vit))
    case.compare(vit.blocks, {f"adaptmlp.{name}": ours for name, ours in adaptformer_names(adapter).items()})


def test_adaptformer_without_layernorm() -> None:
    case = Case("adaptformer_module_ln_none")
    adapter = ParallelBottleneck(case.width, case.hyper["bottleneck"], float(case.hyper["scale"]))
    case.compare(Alone(adapter), adaptformer_names(adapter))


def test_adaptformer_with_layernorm_in_and_learned_scale() -> None:
    case = Case("adaptformer_module_ln_in")
    adapter = ParallelBottleneck(case.width, case.hyper["bottleneck"], scale="learned", layernorm="in")
    norm = weights_and_biases({"adapter_layer_norm_before": adapter.norm_in})
    case.compare(Alone(adapter), {"scale": cast(Tensor, adapter.scale), **norm, **adaptformer_names(adapter)})


def test_adaptformer_with_layernorm_out() -> None:
    case = Case("adaptformer_module_ln_out")
    scale = float(case.hyper["scale"])
    adapter = ParallelBottleneck(case.width, case.hyper["bottleneck"], scale, layernorm="out")
    norm = weights_and_biases({"adapter_layer_norm_before": adapter.norm_out})
    case.compare(Alone(adapter), {**norm, **adaptformer_names(adapter)})


def test_adaptformer_initialisation() -> None:
    torch.manual_seed(0)
    adapter = ParallelBottleneck(768, 64, scale="learned")
    assert_official_init("adaptformer_module_ln_none", adaptformer_names(adapter))
    assert torch.equal(cast(Tensor, adapter.scale), torch.ones(1)), "not 0.1, the default of the fixed scale"


@pytest.mark.parametrize("layernorm", ["none", "in", "out"])
@pytest.mark.parametrize("scale", [0.1, "learned"])
def test_adaptformer_options_start_as_identity(layernorm: str, scale: float | str) -> None:
    method, vit = parse(f"adaptformer(layernorm={layernorm!r}, scale={scale!r})"), one_block_vit()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected, before = method.expected_params(vit), vit(images)
    method.inject(vit)
    assert trained_params(vit) == expected
    assert torch.equal(vit(images), before)


def bottleneck_names(prefix: str, adapter: nn.Module) -> dict[str, Tensor]:
    """Return the adapter's tensors by official names: its nn.Sequential has the two linear layers at 1 and 4."""
    return weights_and_biases(
        {f"{prefix}.bottleneck.{number}": adapter.get_submodule(name) for number, name in ((1, "down"), (4, "up"))}
    )


def behind_branches(vit: VisionTransformer) -> dict[str, Tensor]:
    """Return the tensors of Houlsby's two adapters, or of the only one after the MLP."""
    parts = dict(vit.named_modules())
    found = {
        "adapter_attn": parts.get("blocks.0.drop_path1.1.adapter"),
        "adapter": parts["blocks.0.drop_path2.1.adapter"],
    }
    return {
        name: ours
        for prefix, adapter in found.items()
        if adapter is not None
        for name, ours in bottleneck_names(prefix, adapter).items()
    }


def behind_block_and_norm(vit: VisionTransformer) -> dict[str, Tensor]:
    norm, adapter = cast(nn.Sequential, vit.get_submodule("blocks.0.1.adapter"))
    return {**bottleneck_names("adapter", adapter), **weights_and_biases({"adapter.norm_a": norm})}


def behind_block_and_scaled(vit: VisionTransformer) -> dict[str, Tensor]:
    adapter, scale = cast(nn.Sequential, vit.get_submodule("blocks.0.1.adapter"))
    return {**bottleneck_names("adapter", adapter), "adapter.scaling": cast(Tensor, scale.gamma)}


ADAPTER_PLUS: dict[str, tuple[str, Callable[[VisionTransformer], dict[str, Tensor]]]] = {
    "adapter_plus_block": ("adapter_plus", behind_block_and_scaled),
    "adapter_plus_repo_houlsby_block": ("adapter_houlsby", behind_branches),
    "adapter_plus_repo_pfeiffer_block": ("adapter_pfeiffer", behind_block_and_norm),
    "adapter_plus_repo_intermediate_block": ("adapter_intermediate", behind_branches),
    "adapter_plus_repo_pre_block": (
        "adapter_pre",
        lambda vit: bottleneck_names("adapter", vit.get_submodule("blocks.0.1.adapter")),
    ),
    "adapter_plus_repo_parallel_block": (
        "adapter_parallel",
        lambda vit: bottleneck_names("adapter", vit.get_submodule("blocks.0.1.beside.adapter")),
    ),
}
"""Case -> the method, and a function that returns its tensors by official names."""


@pytest.mark.parametrize("name", ADAPTER_PLUS)
def test_adapter_block(name: str) -> None:
    case, (method, parameters) = Case(name), ADAPTER_PLUS[name]
    vit = injected(parse(f"{method}(bottleneck={case.hyper['dim']})"), case)
    case.compare(vit.blocks, parameters(vit))


@pytest.mark.parametrize("name", ADAPTER_PLUS)
def test_adapter_initialisation(name: str) -> None:
    method, parameters = ADAPTER_PLUS[name]
    assert_official_init(name, parameters(base_with(method)))


def test_drop_path_drops_the_adapter_for_whole_images() -> None:
    torch.manual_seed(0)
    adapter = Bottleneck(8, 4, nn.GELU(), drop_path=0.25)
    x = torch.randn(64, 5, 8)
    with torch.no_grad():
        whole, dropped = adapter.eval()(x), adapter.train()(x)
    ratio = (dropped / whole).flatten(1)
    kept = ratio[:, 0] > 0
    assert 0 < int(kept.sum()) < 64
    torch.testing.assert_close(ratio, torch.where(kept, 1 / 0.75, 0.0)[:, None].expand_as(ratio))


@pytest.mark.parametrize("method", sorted(method for method, _ in ADAPTER_PLUS.values()))
def test_drop_path_field_reaches_the_adapters(method: str) -> None:
    vit = one_block_vit()
    parse(f"{method}(drop_path=0.25)").inject(vit)
    assert {module.drop_path.drop_prob for module in vit.modules() if isinstance(module, Bottleneck)} == {0.25}


def test_noah_adapter() -> None:
    case = Case("noah_adapter")
    r = case.hyper["r"]
    adapter = noah_adapter(vit_for(case), r).double()
    with torch.no_grad():  # the case cuts r units out of a larger adapter, the rest of which gets no gradient
        adapter.down.weight.copy_(case["param.ln1.weight"][:r])
        adapter.down.bias.copy_(case["param.ln1.bias"][:r])
        adapter.up.weight.copy_(case["param.ln2.weight"][:, :r])
        adapter.up.bias.copy_(case["param.ln2.bias"])
    y, x = case.backward(Residual(adapter))
    rest = case["param.ln1.weight"].shape[0] - r
    case.check(
        y,
        x,
        {
            "ln1.weight": nn.functional.pad(cast(Tensor, adapter.down.weight.grad), (0, 0, 0, rest)),
            "ln1.bias": nn.functional.pad(cast(Tensor, adapter.down.bias.grad), (0, rest)),
            "ln2.weight": nn.functional.pad(cast(Tensor, adapter.up.weight.grad), (0, rest)),
            "ln2.bias": adapter.up.bias.grad,
        },
    )


def noah_adapter(vit: VisionTransformer, bottleneck: int) -> Bottleneck:
    parse(f"adapter_noah(bottleneck={bottleneck})").inject(vit)
    return cast(Bottleneck, vit.get_submodule("blocks.0.drop_path2.1.adapter"))


def test_noah_adapter_initialisation() -> None:
    torch.manual_seed(0)
    adapter = noah_adapter(one_block_vit(768), 8)
    assert_official_init("noah_adapter", weights_and_biases({"ln1": adapter.down, "ln2": adapter.up}))


def test_parallel_adapter_reads_the_residual_stream() -> None:
    x, h = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    assert torch.equal(ReadsResidual(nn.Identity())(x, h), x)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("adaptformer(bottleneck=0)", ("bottleneck", "0")),
        ("adaptformer(scale='learnt')", ("scale", "'learned'", "'learnt'")),
        ("adaptformer(layernorm='before')", ("layernorm", "none", "in", "out", "'before'")),
        ("adapter_plus(bottleneck=0)", ("bottleneck", "0")),
        ("adapter_houlsby(drop_path=1.0)", ("drop_path", "1.0")),
        ("adapter_pre(drop_path=-0.1)", ("drop_path", "-0.1")),
        ("adapter_noah(bottleneck=0)", ("bottleneck", "0")),
    ],
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)


def test_spec_of_a_learned_scale() -> None:
    assert parse("adaptformer(scale='learned')").spec() == "adaptformer(scale='learned')"
