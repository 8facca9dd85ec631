"""Test the arguments that make a method as its authors' training does; at their defaults run IDs stay as they were."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from vtab_peft.benchmark.method_checks.tiny_models import inject_copy, tiny
from vtab_peft.methods import METHODS, parse

TIMM_STD = 0.02
"""Standard deviation of timm's initial weights of linear maps, which some releases apply to the adapters too."""

LATER = {
    **{"adapter_houlsby": 1, "adapter_noah": 2, "adapter_parallel": 1, "adapter_pfeiffer": 1, "delora": 1},
    **{"dtl": 1, "dtl_plus": 2, "lora_fused": 1, "mona": 1, "snell": 1},
}
"""Method -> number of arguments added after its first results."""


def wide() -> VisionTransformer:
    return tiny("plain", embed_dim=256, num_heads=4)


@pytest.mark.parametrize("name", sorted(LATER))
def test_arguments_added_later_leave_the_run_id(name: str) -> None:
    method = parse(name)
    assert len(method.args()) - len(method.hashed_args()) == LATER[name]
    assert METHODS[name]() == method


def test_changed_arguments_are_part_of_the_run_id() -> None:
    assert parse("mona(start='released')").hashed_args()["start"] == "released"
    assert "start" not in parse("mona(start='torch')").hashed_args()


@pytest.mark.parametrize(
    ("spec", "own"),
    [
        ("mona(start='released')", "norm|gamma|conv|mix"),
        ("adapter_noah(start='released', bottleneck=64)", ""),
        ("lora_fused(start='released', rank=64)", ""),
    ],
)
def test_released_starts_have_timms_spread(spec: str, own: str) -> None:
    injected = inject_copy(wide(), parse(spec))
    others = own.split("|") if own else []
    for name, tensor in injected.adapter().items():
        if tensor.ndim == 2 and not any(part in name for part in others):
            assert tensor.std() == pytest.approx(TIMM_STD, rel=0.05), name
        elif name.endswith("bias") and not any(part in name for part in others):
            assert not tensor.any(), name


@pytest.mark.parametrize("name", ["dtl", "dtl_plus"])
def test_dtl_can_read_the_mean_of_the_patches(name: str) -> None:
    vit, images = wide(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    injected = inject_copy(vit, parse(f"{name}(pooling='patches')")).vit.eval()
    with torch.no_grad():
        tokens = vit.eval().blocks(vit.norm_pre(vit._pos_embed(vit.patch_embed(images))))
        expected = vit.norm(tokens[:, vit.num_prefix_tokens :].mean(1))  # B is zero: the side network adds nothing
        torch.testing.assert_close(injected(images), expected)
    assert inject_copy(vit, parse(f"{name}(pooling='patches')")).adapter().keys() == (
        inject_copy(vit, parse(name)).adapter().keys()
    )


def test_snell_can_train_the_class_token() -> None:
    vit = wide()
    plain, token = parse("snell"), parse("snell(class_token=True)")
    assert token.expected_params(vit) == plain.expected_params(vit) + vit.embed_dim
    assert inject_copy(vit, token).trainable_params() == token.expected_params(vit)


def test_dtl_plus_has_kernels_of_3_and_5() -> None:
    vit = wide()
    assert parse("dtl_plus(kernel=5)").expected_params(vit) - parse("dtl_plus").expected_params(vit) == 16 * 256
