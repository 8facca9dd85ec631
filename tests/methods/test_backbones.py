"""Real Swin Transformers and ViTs of every family and size, by their structure: weights are random, or on no device."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from vtab_peft.benchmark.engine.backbone import BLOCKS, BackboneError, load, names
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.method_checks.tiny_models import STILL
from vtab_peft.methods import METHODS, parse
from vtab_peft.methods.anatomy import blocks_of

SWIN = "swin_tiny_patch4_window7_224.ms_in1k"
SIZES = (
    *("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224"),
    *("vit_huge_patch14_224", "deit_small_patch16_224", "deit3_base_patch16_224"),
    *("vit_small_patch14_dinov2", "vit_base_patch14_reg4_dinov2", "vit_base_patch16_clip_224"),
    *("vit_base_patch16_siglip_224", "vit_medium_patch16_gap_240", "swin_tiny_patch4_window7_224"),
    *("swin_base_patch4_window7_224", "swin_large_patch4_window7_224"),
)

HEAD = 1025 * 940 / 19
"""Of a Swin-B, on average over VTAB-1k's tasks; the published counts below include it."""

PUBLISHED_ON_SWIN_BASE = {"full": 86.9e6, "linear": 0.05e6, "partial": 12.65e6}
"""HTA (NeurIPS 2024, arXiv:2410.22952), the table of Swin-B."""

SWIN_BASE_COUNTS = {
    # BitFit is published as 0.25 M, which fits 137,216 + a head only if the relative position "bias" tables count as
    # biases (63,544 numbers); they are weights of attention, added to no output, and stay frozen here.
    "bitfit": 137_216,
    "lora(rank=8)": sum(n * 2 * 2 * 8 * d for n, d in ((2, 128), (2, 256), (18, 512), (2, 1024))),
    "aoft_lora_paper": sum(n * 2 * 2 * d for n, d in ((2, 128), (2, 256), (18, 512), (2, 1024))),
}


@pytest.mark.parametrize("name", SIZES)
def test_every_family_and_size_is_taken_and_counted(name: str) -> None:
    """The closed form of full fine-tuning is the number of parameters timm says the model has."""
    with torch.device("meta"):
        vit = timm.create_model(name, num_classes=0)
    assert all(type(place.block) is BLOCKS[type(vit)] for place in blocks_of(vit))
    assert parse("full").expected_params(vit) == sum(p.numel() for p in vit.parameters())
    biases = sum(p.numel() for name, p in vit.named_parameters() if name.endswith(".bias"))
    assert parse("bitfit").expected_params(vit) == biases


@pytest.mark.parametrize("spec", SWIN_BASE_COUNTS)
def test_counts_on_swin_base(spec: str) -> None:
    with torch.device("meta"):
        vit = timm.create_model("swin_base_patch4_window7_224", num_classes=0)
    assert parse(spec).expected_params(vit) == SWIN_BASE_COUNTS[spec]


@pytest.mark.parametrize("spec", PUBLISHED_ON_SWIN_BASE)
def test_counts_on_swin_base_are_the_published_ones(spec: str) -> None:
    with torch.device("meta"):
        vit = timm.create_model("swin_base_patch4_window7_224", num_classes=0)
    assert parse(spec).expected_params(vit) + HEAD == pytest.approx(PUBLISHED_ON_SWIN_BASE[spec], rel=0.02)


def test_they_are_listed() -> None:
    listed = {name.partition(".")[0] for name in names()}
    assert {*SIZES} <= listed
    assert not any("distilled" in name for name in listed)


def test_a_swin_checkpoint_is_read_and_its_features_are_timms(tmp_path) -> None:
    torch.manual_seed(0)
    original = timm.create_model(SWIN, pretrained=False, num_classes=7, img_size=56).eval()
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    backbone = load(SWIN, str(tmp_path / "w.safetensors"), image_size=56)
    assert "head.fc.bias" in backbone.notes[0]
    assert backbone.mean == (0.485, 0.456, 0.406)
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = original.forward_head(original.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone.vit(images), expected)


def test_drop_path_grows_over_the_stages_of_a_swin() -> None:
    vit = load(SWIN, "random", image_size=56).vit
    injected = inject(vit, parse("lora"), replace(STILL, drop_path=0.1), 0).vit
    rates = [getattr(place.block.drop_path1, "drop_prob", 0.0) for place in blocks_of(injected)]
    assert rates == pytest.approx([0.1 * i / 11 for i in range(12)])
    assert all(getattr(place.block.drop_path1, "drop_prob", 0.0) == 0 for place in blocks_of(vit))


def test_weights_of_another_family_are_refused(tmp_path) -> None:
    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match="do not fit"):
        load(SWIN, str(tmp_path / "w.safetensors"), image_size=56)


def test_all_means_what_the_backbone_takes() -> None:
    on_swin = {name for name, cls in METHODS.items() if "swin" in cls.backbones}
    assert {
        "lora",
        "aoft_lora",
        "aoft_adapter",
        "adaptformer",
        "ssf",
        "bitfit",
        "layernorm",
        "linear",
        "full",
    } <= on_swin
    assert not on_swin & {"vpt_deep", "convpass", "fact_tt", "cara"}
