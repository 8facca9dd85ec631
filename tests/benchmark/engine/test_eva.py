"""timm's Eva in the form of a plain ViT: the same features, positions of prompts, files, and the way back."""

import copy
from inspect import signature
from unittest.mock import patch

import pytest
import timm
import torch
from raises import raises_naming
from safetensors.torch import save_file
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from vtab_peft.benchmark.checkpoints.restore import timm_arguments, with_head
from vtab_peft.benchmark.engine.backbone import BackboneError, load
from vtab_peft.benchmark.engine.eva import AS_PLAIN, plain_vit, timm_tensors
from vtab_peft.benchmark.engine.fast_path import prune_last_block_to_cls
from vtab_peft.benchmark.method_checks.tiny_models import OTHER_VITS, inject_copy, sample_images, tiny
from vtab_peft.methods import parse

EVAS = ("DINOv3", "EVA-02", "EVA", "PE")
GROUPED = pytest.mark.skipif("num_kv_heads" not in signature(Eva).parameters, reason="timm has no such Eva yet")
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
NAMES = {"DINOv3": "vit_small_patch16_dinov3.lvd1689m", "EVA-02": "eva02_tiny_patch14_224.mim_in22k"}


def eva(name: str, **changes: object) -> Eva:
    """Return a tiny Eva without zero tensors."""
    torch.manual_seed(0)
    vit = OTHER_VITS[name](**changes).eval()
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.1)
    return vit.requires_grad_(False)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", EVAS)
def test_the_plain_form_computes_the_same_features(name: str, training: bool) -> None:
    original = eva(name).train(training)
    vit = plain_vit(copy.deepcopy(original))
    assert type(vit) is VisionTransformer
    assert vit.training is training
    assert torch.equal(vit(sample_images()), original(sample_images()))


@pytest.mark.parametrize("changes", [{"qkv_bias": True}, {"num_reg_tokens": 2}, {"dynamic_img_size": True}])
def test_forms_of_dinov3_compute_the_same_features(changes: dict) -> None:
    original = eva("DINOv3", **changes)
    assert torch.equal(plain_vit(copy.deepcopy(original))(sample_images()), original(sample_images()))


@pytest.mark.parametrize("name", EVAS)
def test_the_way_back_gives_an_eva_of_timm(name: str) -> None:
    original = eva(name)
    back = OTHER_VITS[name](**AS_PLAIN).eval()
    back.load_state_dict(timm_tensors(plain_vit(copy.deepcopy(original)), back))
    torch.testing.assert_close(back(sample_images()), original(sample_images()))


def test_prompts_are_not_rotated() -> None:
    """Tokens before the patches are what timm calls prefix tokens."""
    original = eva("PE")
    vit, rope = plain_vit(copy.deepcopy(original)), original.rope.get_embed()
    x = torch.randn(2, 1 + 3 + len(rope), 32, generator=torch.Generator().manual_seed(0))
    original.blocks[0].attn.num_prefix_tokens = 1 + 3
    torch.testing.assert_close(vit.blocks[0].attn(x), original.blocks[0].attn(x, rope=rope))


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_timm_are_loaded_and_exported(name: str, tmp_path) -> None:
    """The exported model is an Eva of timm, built with other arguments."""
    torch.manual_seed(0)
    patch_size = 16 if name == "DINOv3" else 14
    with patch.dict(timm.models._registry._model_entrypoints):
        shrink(NAMES[name].partition(".")[0])
        original = timm.create_model(NAMES[name], pretrained=False, num_classes=3, img_size=2 * patch_size).eval()
        save_file(original.state_dict(), tmp_path / "w.safetensors")
        backbone = load(NAMES[name], str(tmp_path / "w.safetensors"), image_size=2 * patch_size)
        images = torch.randn(2, 3, 2 * patch_size, 2 * patch_size)
        with torch.no_grad():
            assert torch.equal(backbone.vit(images), original.forward_head(original.forward_features(images), True))
        injected = inject_copy(backbone.vit, parse("ssf")).vit.eval()
        features = injected(images)
        parse("ssf").merge(injected)
        exported = with_head(backbone, injected, nn.Linear(32, 5))
        assert isinstance(exported, Eva)
        assert timm_arguments(backbone, 5)[1].items() >= AS_PLAIN.items()
        torch.testing.assert_close(exported.forward_head(exported.forward_features(images), True), features)


def shrink(architecture: str) -> None:
    """Let timm build two narrow blocks of an architecture."""
    build = timm.models.model_entrypoint(architecture)
    timm.models._registry._model_entrypoints[architecture] = lambda *a, **options: build(*a, **(options | SMALL))


@pytest.mark.parametrize(
    ("name", "changes", "fact"),
    [
        ("EVA", {"use_post_norm": True}, "EvaBlockPostNorm"),
        ("PE", {"rope_type": "mixed"}, "rotary"),
        pytest.param("PE", {"num_kv_heads": 1, "qkv_fused": False}, "groups", marks=GROUPED),
    ],
)
def test_an_eva_without_plain_form_is_refused(name: str, changes: dict, fact: str) -> None:
    with raises_naming(ValueError, fact):
        plain_vit(OTHER_VITS[name](**changes))


def test_blocks_that_timm_computes_otherwise_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = EvaBlock.forward
    original = eva("DINOv3")
    monkeypatch.setattr(EvaBlock, "forward", lambda self, x, **more: forward(self, x, **more) + x.sin())
    with raises_naming(ValueError, timm.__version__):
        plain_vit(original)


def test_weights_of_another_eva_are_refused(tmp_path) -> None:
    save_file(eva("PE").state_dict(), tmp_path / "w.safetensors")
    with raises_naming(BackboneError, "w.safetensors", "width"):
        load("vit_small_patch16_dinov3.lvd1689m", str(tmp_path / "w.safetensors"), image_size=32)


def test_the_last_block_of_a_rotary_vit_is_not_pruned() -> None:
    vit = tiny("DINOv3", global_pool="token")
    before = vit(sample_images())
    assert not prune_last_block_to_cls(vit)
    assert torch.equal(vit(sample_images()), before)
