"""Adapters against numbers computed with official code."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from golden_blocks import Alone, assert_same_start, injected, one_block_vit, weights_and_biases
from golden_cases import MANIFEST, Case
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.adapters import Bottleneck, ReadsResidual
from vtab_peft.methods.adaptformer import ParallelBottleneck
from vtab_peft.methods.blocks import Residual


def adaptformer_names(adapter: ParallelBottleneck) -> dict[str, Tensor]:
    return weights_and_biases({"down_proj": adapter.down, "up_proj": adapter.up})


def beside_mlp(vit: VisionTransformer) -> nn.Module:
    return vit.get_submodule("blocks.0.1.beside")


def test_adaptformer_block() -> None:
    case, hyper = Case("adaptformer_block"), MANIFEST["adaptformer_block"]["hyper"]
    vit = injected(parse(f"adaptformer(bottleneck={hyper['bottleneck']}, scale={hyper['scale']})"), case)
    adapter = cast(ParallelBottleneck, beside_mlp(vit))
    case.compare(vit.blocks, {f"adaptmlp.{name}": ours for name, ours in adaptformer_names(adapter).items()})


def test_adaptformer_without_layernorm() -> None:
    case, hyper = Case("adaptformer_module_ln_none"), MANIFEST["adaptformer_module_ln_none"]["hyper"]
    adapter = ParallelBottleneck(48, hyper["bottleneck"], float(hyper["scale"]))
    case.compare(Alone(adapter), adaptformer_names(adapter))


def test_adaptformer_with_layernorm_in_front_and_learned_scale() -> None:
    case, hyper = Case("adaptformer_module_ln_in"), MANIFEST["adaptformer_module_ln_in"]["hyper"]
    adapter = ParallelBottleneck(48, hyper["bottleneck"], scale="learned", layernorm="in")
    norm = weights_and_biases({"adapter_layer_norm_before": adapter.norm_in})
    case.compare(Alone(adapter), {"scale": cast(Tensor, adapter.scale), **norm, **adaptformer_names(adapter)})


def test_adaptformer_with_layernorm_behind() -> None:
    case, hyper = Case("adaptformer_module_ln_out"), MANIFEST["adaptformer_module_ln_out"]["hyper"]
    adapter = ParallelBottleneck(48, hyper["bottleneck"], float(hyper["scale"]), layernorm="out")
    norm = weights_and_biases({"adapter_layer_norm_before": adapter.norm_out})
    case.compare(Alone(adapter), {**norm, **adaptformer_names(adapter)})


def test_adaptformer_starts_as_published() -> None:
    torch.manual_seed(0)
    adapter = ParallelBottleneck(768, 64, scale="learned")
    assert_same_start(MANIFEST["adaptformer_module_ln_none"]["official_init_d768"], adaptformer_names(adapter))
    assert torch.equal(cast(Tensor, adapter.scale), torch.ones(1)), "not 0.1, the default of the fixed scale"


@pytest.mark.parametrize("layernorm", ["none", "in", "out"])
@pytest.mark.parametrize("scale", [0.1, "learned"])
def test_every_option_of_adaptformer_starts_as_identity_and_is_counted(layernorm: str, scale: float | str) -> None:
    method, vit = parse(f"adaptformer(layernorm={layernorm!r}, scale={scale!r})"), one_block_vit()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected, before = method.expected_params(vit), vit(images)
    method.inject(vit)
    assert sum(p.numel() for p in vit.parameters() if p.requires_grad) == expected
    assert torch.equal(vit(images), before)


def bottleneck_names(prefix: str, adapter: nn.Module) -> dict[str, Tensor]:
    """By the names of the official code, in whose nn.Sequential the two linear maps are number 1 and number 4."""
    return weights_and_biases(
        {f"{prefix}.bottleneck.{number}": adapter.get_submodule(name) for number, name in ((1, "down"), (4, "up"))}
    )


def behind_branches(vit: VisionTransformer) -> dict[str, Tensor]:
    """Houlsby's two adapters, or the only one behind the MLP."""
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
"""Case -> the method, and where its parameters are."""


@pytest.mark.parametrize("name", ADAPTER_PLUS)
def test_adapter_in_its_place(name: str) -> None:
    case, (method, parameters) = Case(name), ADAPTER_PLUS[name]
    vit = injected(parse(f"{method}(bottleneck={MANIFEST[name]['hyper']['dim']})"), case)
    case.compare(vit.blocks, parameters(vit))


@pytest.mark.parametrize("name", ADAPTER_PLUS)
def test_adapter_starts_as_published(name: str) -> None:
    method, parameters = ADAPTER_PLUS[name]
    official = MANIFEST[name]["official_init_d768"]
    if isinstance(official, str):
        official = MANIFEST[official.removeprefix("same as ")]["official_init_d768"]
    vit = one_block_vit(768)
    torch.manual_seed(0)
    parse(method).inject(vit)
    assert_same_start(official, parameters(vit))


def test_drop_path_takes_the_adapter_from_whole_images() -> None:
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
def test_drop_path_of_the_method_reaches_its_adapters(method: str) -> None:
    vit = one_block_vit()
    parse(f"{method}(drop_path=0.25)").inject(vit)
    assert {module.drop_path.drop_prob for module in vit.modules() if isinstance(module, Bottleneck)} == {0.25}


def test_noah_adapter() -> None:
    case, r = Case("noah_adapter"), MANIFEST["noah_adapter"]["hyper"]["r"]
    adapter = noah_adapter(one_block_vit(), r).double()
    with torch.no_grad():  # the case cuts r units out of a larger adapter, the rest of which gets no gradient
        adapter.down.weight.copy_(case["param.ln1.weight"][:r])
        adapter.down.bias.copy_(case["param.ln1.bias"][:r])
        adapter.up.weight.copy_(case["param.ln2.weight"][:, :r])
        adapter.up.bias.copy_(case["param.ln2.bias"])
    x = case["x"].clone().requires_grad_(True)
    y = Residual(adapter)(x)
    (y * case["cotangent"]).sum().backward()
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


def test_noah_adapter_starts_as_published() -> None:
    torch.manual_seed(0)
    adapter = noah_adapter(one_block_vit(768), 8)
    ours = weights_and_biases({"ln1": adapter.down, "ln2": adapter.up})
    assert_same_start(MANIFEST["noah_adapter"]["official_init_d768"], ours)


def test_the_parallel_adapter_reads_the_stream_and_not_the_normalised_input() -> None:
    x, h = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    assert torch.equal(ReadsResidual(nn.Identity())(x, h), x)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("adaptformer(bottleneck=0)", "bottleneck must be at least 1"),
        ("adaptformer(scale='learnt')", "scale must be a number or 'learned', not 'learnt'"),
        ("adaptformer(layernorm='before')", "layernorm must be one of none, in, out, not 'before'"),
        ("adapter_plus(bottleneck=0)", "bottleneck must be at least 1"),
        ("adapter_houlsby(drop_path=1.0)", "drop_path must be at least 0 and below 1, not 1.0"),
        ("adapter_pre(drop_path=-0.1)", "drop_path must be at least 0 and below 1, not -0.1"),
        ("adapter_noah(bottleneck=0)", "bottleneck must be at least 1"),
    ],
)
def test_wrong_hyper_parameters_are_named(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(spec)


def test_spec_of_a_learned_scale() -> None:
    assert parse("adaptformer(scale='learned')").spec() == "adaptformer(scale='learned')"
