"""Compare Convpass and Mona, adapters that read the patch grid, with numbers computed with official code."""

import re
from typing import cast

import pytest
import torch
from golden_blocks import (
    Alone,
    assert_official_init,
    base_with,
    injected,
    one_block_vit,
    vit_for,
    weights_and_biases,
)
from golden_cases import Case, official_init
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.blocks import OnPatchGrid, Residual
from vtab_peft.methods.convpass import Bypass
from vtab_peft.methods.mona import MonaAdapter


def bypass_names(bypass: Bypass) -> dict[str, Tensor]:
    return weights_and_biases(
        {
            "adapter_conv": bypass.convolution.module,
            "adapter_down": bypass.down,
            "adapter_up": bypass.up,
        }
    )


def bypasses(vit: VisionTransformer) -> list[Bypass]:
    return [module for module in vit.modules() if isinstance(module, Bypass)]


def test_convpass_module() -> None:
    case = Case("convpass_module")
    vit = vit_for(case)
    parse(f"convpass_attn(bottleneck={case.hyper['dim']})").inject(vit)
    (bypass,) = bypasses(vit)
    case.compare(Alone(bypass), bypass_names(bypass))


def test_convpass_block() -> None:
    case = Case("convpass_block")
    vit = injected(parse(f"convpass(bottleneck={case.hyper['dim']}, scale={case.hyper['s']})"), case)
    parameters = {
        f"{prefix}.{name}": ours
        for prefix, bypass in zip(("adapter_attn", "adapter_mlp"), bypasses(vit), strict=True)
        for name, ours in bypass_names(bypass).items()
    }
    case.compare(vit.blocks, parameters)


@pytest.mark.parametrize("method", ["convpass", "convpass_attn"])
def test_convpass_initialisation(method: str) -> None:
    official = official_init("convpass_module")
    xavier = official.pop("adapter_conv.weight [xavier_init=True]")
    if method == "convpass_attn":
        official["adapter_conv.weight"] = xavier
    for bypass in bypasses(base_with(method)):
        assert_official_init(official, bypass_names(bypass))


def test_identity_kernel_and_xavier_kernel() -> None:
    """The test above cannot tell them apart: their statistics are nearly equal at width 768."""
    x = torch.randn(2, 17, 8, generator=torch.Generator().manual_seed(0))
    for method, same in (("convpass", True), ("convpass_attn", False), ("convpass(kernel='xavier')", False)):
        vit = one_block_vit()
        parse(method).inject(vit)
        assert all(torch.equal(bypass.convolution(x), x) == same for bypass in bypasses(vit)), method


def test_convpass_attn_leaves_the_mlp_branch_alone() -> None:
    vit = one_block_vit()
    parse("convpass_attn").inject(vit)
    attention, mlp = cast(nn.Sequential, vit.blocks[0])
    assert isinstance(attention.beside, Bypass)
    assert mlp.beside is None


def test_bypass_uses_drop_path_of_its_block() -> None:
    vit = one_block_vit(drop_path_rate=0.0)
    vit.blocks[0].drop_path1 = rate = nn.Dropout(1.0)
    parse("convpass").inject(vit)
    attention, mlp = bypasses(vit)
    assert attention.drop_path is rate
    assert isinstance(mlp.drop_path, nn.Identity)


def marked(vit: VisionTransformer, token: int) -> Tensor:
    """Return which tokens [n] receive the value of one token in a convolution that sums 3 x 3 neighbours."""
    convolution = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(convolution.weight)
    over = OnPatchGrid(convolution, vit)
    x = torch.zeros(1, over.prefix + over.grid[0] * over.grid[1], 1)
    x[0, token] = 1
    return over(x).detach()[0, :, 0]


def test_patch_grid_need_not_be_square() -> None:
    vit = one_block_vit(grid=(3, 5), reg_tokens=2)  # 1 class token and 2 registers in front
    row, column = 1, 4  # at the right edge
    seen = marked(vit, 3 + row * 5 + column)
    expected = torch.zeros(3, 5)
    expected[0:3, 3:5] = 1
    assert torch.equal(seen[:3], torch.zeros(3)), "no patch reaches a prefix token"
    assert torch.equal(seen[3:].reshape(3, 5), expected)


@pytest.mark.parametrize("token", [0, 1, 2])
def test_prefix_token_passes_the_centre_tap_only(token: int) -> None:
    seen = marked(one_block_vit(grid=(3, 5), reg_tokens=2), token)
    assert torch.equal(seen, nn.functional.one_hot(torch.tensor(token), 18).float())


@pytest.mark.parametrize("method", ["convpass", "mona"])
@pytest.mark.parametrize("tokens", [{"reg_tokens": 4}, {"class_token": False, "global_pool": "avg"}])
def test_any_prefix_tokens_and_grid(method: str, tokens: dict[str, int | bool | str]) -> None:
    vit = one_block_vit(grid=(2, 3), **tokens)
    parse(method).inject(vit)
    assert vit(torch.randn(2, 3, 8, 12)).shape == (2, 48)


def mona_names(adapter: MonaAdapter) -> dict[str, Tensor]:
    depthwise, pointwise = (residual.adapter for residual in cast(nn.Sequential, adapter.mix.module))
    convolutions = {f"adapter_conv.conv{i}": part for i, part in enumerate(cast(nn.Module, depthwise).parts, 1)}
    return {
        "gamma": adapter.gamma,
        "gammax": adapter.gamma_x,
        **weights_and_biases(
            {
                "norm": adapter.norm,
                "project1": adapter.down,
                "project2": adapter.up,
                **convolutions,
                "adapter_conv.projector": cast(nn.Module, pointwise),
            }
        ),
    }


def test_mona_module(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("mona_module")
    kernels = [value.shape[-1] for name, value in case.items() if re.match(r"param.*conv\d\.weight", name)]
    monkeypatch.setattr("vtab_peft.methods.mona.KERNELS", kernels)
    vit = vit_for(case, class_token=False, global_pool="avg")
    adapter = MonaAdapter(vit, case.hyper["bottleneck"], 0.1, "torch")
    case.compare(Residual(adapter), mona_names(adapter))


def test_mona_initialisation() -> None:
    torch.manual_seed(0)
    adapter = MonaAdapter(one_block_vit(768), 64, 0.1, "torch")
    assert_official_init("mona_module", mona_names(adapter))


def test_mona_follows_each_branch() -> None:
    vit = one_block_vit()
    parse("mona").inject(vit)
    attention, first, mlp, second = cast(nn.Sequential, vit.blocks[0].eval())
    x = torch.randn(2, 17, 48, generator=torch.Generator().manual_seed(0))
    x1 = attention(x)
    x2 = x1 + first.adapter(x1)
    x3 = mlp(x2)
    torch.testing.assert_close(vit.blocks(x), x3 + second.adapter(x3))
    assert first.adapter is not second.adapter
    assert attention.inner is not mlp.inner


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("convpass(bottleneck=0)", ("bottleneck", "0")),
        ("convpass_attn(kernel='zeros')", ("kernel", "identity", "xavier", "'zeros'")),
        ("mona(bottleneck=0)", ("bottleneck", "0")),
    ],
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)
