"""RepAdapter and ARC, linear adapters that fold into the map behind them, against numbers from official code."""

from typing import cast

import pytest
import torch
from golden_blocks import assert_same_start, injected, one_block_vit, weights_and_biases
from golden_cases import MANIFEST, Case
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import Method, parse
from vtab_peft.methods.arc import Recomposed
from vtab_peft.methods.repadapter import GroupedBottleneck


def behind_norms(vit: VisionTransformer, block: int = 0) -> list[nn.Module]:
    """The adapters of a block, that of attention first."""
    norms = (vit.blocks[block].get_submodule(norm) for norm in ("norm1", "norm2"))
    return [cast(nn.Module, norm[1].adapter) for norm in norms if isinstance(norm, nn.Sequential)]


def repadapter_names(adapter: GroupedBottleneck) -> dict[str, Tensor]:
    down = weights_and_biases({"conv_A": adapter.down})
    return {**down, "conv_B.weight": adapter.up, "conv_B.bias": adapter.up_bias}


def test_repadapter_block_and_what_it_folds_into() -> None:
    case, hyper = Case("repadapter_block"), MANIFEST["repadapter_block"]["hyper"]
    fields = f"bottleneck={hyper['hidden_dim']}, groups={hyper['groups']}, scale={hyper['scale']}"
    method = parse(f"repadapter({fields})")
    vit = injected(method, case)
    parameters = {
        f"{prefix}.{name}": ours
        for prefix, adapter in zip(("adapter_attn", "adapter_mlp"), behind_norms(vit), strict=True)
        for name, ours in repadapter_names(cast(GroupedBottleneck, adapter)).items()
    }
    case.compare(vit.blocks, parameters)
    method.merge(vit)
    for name in ("attn.qkv", "mlp.fc1"):
        linear = cast(nn.Linear, vit.get_submodule(f"blocks.0.{name}"))
        case.check_merged(f"merged.{name}.weight", linear.weight)
        case.check_merged(f"merged.{name}.bias", linear.bias)
    torch.testing.assert_close(vit.blocks(case["x"]), case["y"], rtol=0, atol=1e-10)


def test_repadapter_starts_as_published() -> None:
    vit = one_block_vit(768)
    torch.manual_seed(0)
    parse("repadapter").inject(vit)
    for adapter in behind_norms(vit):
        official = MANIFEST["repadapter_block"]["official_init_d768"]
        assert_same_start(official, repadapter_names(cast(GroupedBottleneck, adapter)))


def test_grouped_outputs_read_their_own_share_of_the_bottleneck() -> None:
    adapter = GroupedBottleneck(6, 4, groups=2, scale=1.0, dropout=0.0)
    nn.init.ones_(adapter.up)
    reads = torch.tensor([[1.0, 1, 0, 0], [0.0, 0, 1, 1]]).repeat_interleave(3, 0)
    assert torch.equal(adapter.dense_up(), reads)


ARC_NAMES = {"att_adapter": "att_down_projection", "mlp_adapter": "mlp_down_projection"}


def arc_names(vit: VisionTransformer, layer: str = "") -> dict[str, Tensor]:
    found = {}
    for (prefix, projection), adapter in zip(ARC_NAMES.items(), behind_norms(vit), strict=True):
        recomposed = cast(Recomposed, adapter)
        found[projection] = recomposed.projection
        found[f"{layer}{prefix}.adapter_rescale"] = recomposed.rescale
        found[f"{layer}{prefix}.adapter_bias"] = recomposed.bias
    return found


def test_arc_block_and_what_it_folds_into() -> None:
    case = Case("arc_block")
    method = parse(f"arc(bottleneck={MANIFEST['arc_block']['hyper']['adapter_dim']})")
    vit = injected(method, case)
    case.compare(vit.blocks, arc_names(vit))
    method.merge(vit)
    qkv = cast(nn.Linear, vit.get_submodule("blocks.0.attn.qkv"))
    case.check_merged("merged.qkv.weight", qkv.weight)
    case.check_merged("merged.qkv.bias", qkv.bias)
    torch.testing.assert_close(vit.blocks(case["x"]), case["y"], rtol=0, atol=1e-10)


def test_arc_starts_as_published() -> None:
    vit = one_block_vit(768)
    torch.manual_seed(0)
    parse("arc").inject(vit)
    assert_same_start(MANIFEST["arc_block"]["official_init_d768"], arc_names(vit, layer="layer.0."))


def test_arc_shares_a_projection_between_layers_but_not_between_attention_and_mlp() -> None:
    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=48, depth=3, num_heads=4, num_classes=0)
    parse("arc").inject(vit)
    projections = [[id(cast(Recomposed, adapter).projection) for adapter in behind_norms(vit, i)] for i in range(3)]
    assert projections[0] == projections[1] == projections[2]
    assert projections[0][0] != projections[0][1]


def inject_trained(method: Method, vit: VisionTransformer) -> None:
    """With random values in the place of learned ones, ready for evaluation."""
    method.inject(vit)
    vit.eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in vit.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


@pytest.mark.parametrize("name", ["repadapter", "arc"])
def test_before_attention_alone(name: str) -> None:
    """Half the adapters, and the merged model is plain again."""
    method, vit = parse(f"{name}(where='attn')"), one_block_vit()
    plain, expected = list(vit.state_dict()), method.expected_params(vit)
    inject_trained(method, vit)
    assert len(behind_norms(vit)) == 1
    assert sum(p.numel() for p in vit.parameters() if p.requires_grad) == expected
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    before = vit(images)
    method.merge(vit)
    assert list(vit.state_dict()) == plain
    torch.testing.assert_close(vit(images), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["repadapter", "arc"])
def test_a_map_without_bias_gets_one_when_the_adapter_shifts_its_input(name: str) -> None:
    method, vit = parse(name), one_block_vit(qkv_bias=False)
    inject_trained(method, vit)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    before = vit(images)
    method.merge(vit)
    torch.testing.assert_close(vit(images), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("repadapter(bottleneck=0)", "bottleneck must be at least 1"),
        ("repadapter(groups=0)", "groups must be at least 1"),
        ("repadapter(bottleneck=6, groups=4)", "groups=4 must divide bottleneck=6"),
        ("repadapter(where='mlp')", "where must be one of block, attn, not 'mlp'"),
        ("arc(bottleneck=0)", "bottleneck must be at least 1"),
        ("arc(where='mlp')", "where must be one of block, attn, not 'mlp'"),
    ],
)
def test_wrong_hyper_parameters_are_named(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(spec)


def test_groups_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="groups=5 must divide the model's width 48"):
        parse("repadapter(bottleneck=10, groups=5)").inject(one_block_vit())
