"""Compare RepAdapter and ARC, which merge into the next linear layer, with numbers computed with official code."""

from typing import cast

import pytest
import torch
from golden_blocks import (
    assert_merge_keeps_features,
    assert_official_init,
    base_with,
    inject_random,
    injected,
    one_block_vit,
    trained_params,
    weights_and_biases,
)
from golden_cases import Case
from raises import raises_naming
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.arc import Recomposed
from vtab_peft.methods.repadapter import GroupedBottleneck


def behind_norms(vit: VisionTransformer, block: int = 0) -> list[nn.Module]:
    """Return the adapters of a block, that of attention first."""
    norms = (vit.blocks[block].get_submodule(norm) for norm in ("norm1", "norm2"))
    return [cast(nn.Module, norm[1].adapter) for norm in norms if isinstance(norm, nn.Sequential)]


def repadapter_names(adapter: GroupedBottleneck) -> dict[str, Tensor]:
    down = weights_and_biases({"conv_A": adapter.down})
    return {**down, "conv_B.weight": adapter.up, "conv_B.bias": adapter.up_bias}


def test_repadapter_block_and_merging() -> None:
    case = Case("repadapter_block")
    method = parse("repadapter(bottleneck={hidden_dim}, groups={groups}, scale={scale})".format(**case.hyper))
    vit = injected(method, case)
    parameters = {
        f"{prefix}.{name}": ours
        for prefix, adapter in zip(("adapter_attn", "adapter_mlp"), behind_norms(vit), strict=True)
        for name, ours in repadapter_names(cast(GroupedBottleneck, adapter)).items()
    }
    case.compare(vit.blocks, parameters)
    method.merge(vit)
    for name in ("attn.qkv", "mlp.fc1"):
        case.check_merged_linear(f"merged.{name}", cast(nn.Linear, vit.get_submodule(f"blocks.0.{name}")))
    case.check_output(vit.blocks)


def test_repadapter_initialisation() -> None:
    for adapter in behind_norms(base_with("repadapter")):
        assert_official_init("repadapter_block", repadapter_names(cast(GroupedBottleneck, adapter)))


def test_each_group_reads_its_part_of_the_bottleneck() -> None:
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


def test_arc_block_and_merging() -> None:
    case = Case("arc_block")
    method = parse(f"arc(bottleneck={case.hyper['adapter_dim']})")
    vit = injected(method, case)
    case.compare(vit.blocks, arc_names(vit))
    method.merge(vit)
    case.check_merged_linear("merged.qkv", cast(nn.Linear, vit.get_submodule("blocks.0.attn.qkv")))
    case.check_output(vit.blocks)


def test_arc_initialisation() -> None:
    assert_official_init("arc_block", arc_names(base_with("arc"), layer="layer.0."))


def test_arc_shares_projections_between_layers() -> None:
    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=48, depth=3, num_heads=4, num_classes=0)
    parse("arc").inject(vit)
    projections = [[id(cast(Recomposed, adapter).projection) for adapter in behind_norms(vit, i)] for i in range(3)]
    assert projections[0] == projections[1] == projections[2]
    assert projections[0][0] != projections[0][1]


@pytest.mark.parametrize("name", ["repadapter", "arc"])
def test_before_attention_alone(name: str) -> None:
    """Half the adapters are there, and the merged model is plain again."""
    method, vit = parse(f"{name}(where='attn')"), one_block_vit()
    plain, expected = list(vit.state_dict()), method.expected_params(vit)
    inject_random(method, vit)
    assert len(behind_norms(vit)) == 1
    assert trained_params(vit) == expected
    assert_merge_keeps_features(method, vit)
    assert list(vit.state_dict()) == plain


@pytest.mark.parametrize("name", ["repadapter", "arc"])
def test_merging_adds_a_missing_bias(name: str) -> None:
    method, vit = parse(name), one_block_vit(qkv_bias=False)
    inject_random(method, vit)
    assert_merge_keeps_features(method, vit)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("repadapter(bottleneck=0)", ("bottleneck", "0")),
        ("repadapter(groups=0)", ("groups", "0")),
        ("repadapter(bottleneck=6, groups=4)", ("groups=4", "bottleneck=6")),
        ("repadapter(where='mlp')", ("where", "block", "attn", "'mlp'")),
        ("arc(bottleneck=0)", ("bottleneck", "0")),
        ("arc(where='mlp')", ("where", "block", "attn", "'mlp'")),
    ],
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)


def test_groups_must_divide_the_width() -> None:
    with raises_naming(ValueError, "groups=5", 48):
        parse("repadapter(bottleneck=10, groups=5)").inject(one_block_vit())
