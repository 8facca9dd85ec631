"""Structure of real Swin Transformers and ViTs of every family and size, with random or meta weights."""

import copy
from dataclasses import replace

import pytest
import timm
import torch
from raises import raises_naming
from safetensors.torch import save_file
from timm.models.vision_transformer import Attention
from vtab_peft.benchmark.engine.backbone import BLOCKS, Backbone, BackboneError, load, names
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.execution.method_info import all_methods
from vtab_peft.benchmark.method_checks.tiny_models import BACKBONES as TINY_BACKBONES
from vtab_peft.benchmark.method_checks.tiny_models import NO_DROP_PATH, OTHER_VITS, sample_images, tiny
from vtab_peft.benchmark.spec import BackboneRef
from vtab_peft.methods import METHODS, blocks, parse
from vtab_peft.methods.anatomy import blocks_of
from vtab_peft.methods.attention import attend
from vtab_peft.methods.base import check_backbone
from vtab_peft.methods.blocks import branches

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
    assert all(type(ref.block) is BLOCKS[type(vit)] for ref in blocks_of(vit))
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


@pytest.mark.parametrize("name", [*TINY_BACKBONES, *OTHER_VITS])
def test_two_branches_compute_a_block_of_timm(name: str) -> None:
    vit, outputs = tiny(name), {}
    for ref in blocks_of(vit):
        ref.block.register_forward_hook(lambda _, inputs, output, ref=ref: outputs.update({ref: (inputs[0], output)}))
    vit(sample_images())
    for ref, (x, expected) in outputs.items():
        attention, mlp = branches(ref.block)
        assert torch.equal(mlp(attention(x)), expected)


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": False}, {"qk_norm": True}, {"scale_norm": True}])
def test_attend_computes_the_attention_of_timm(changes: dict) -> None:
    torch.manual_seed(0)
    attention = Attention(32, num_heads=2, **{"qkv_bias": True} | changes, norm_layer=torch.nn.LayerNorm).eval()
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(attend(attention, x, x), attention(x))
    torch.testing.assert_close(attend(attention, x[:, :2], x), attention(x)[:, :2])


@pytest.mark.parametrize("backbone", ["plain", "differential attention"])
@pytest.mark.parametrize("spec", ["vqt", "cvpt", "e2vpt", "gate_vpt"])
def test_repeated_attention_is_compared_in_every_block(spec: str, backbone: str) -> None:
    """However small the weights are: timm's initialisation makes outputs of 1e-3."""
    vit = tiny(backbone)
    last = vit.blocks[-1].attn
    torch.nn.init.normal_(last.proj.weight, std=1e-4)
    torch.nn.init.zeros_(last.proj.bias)
    if backbone == "plain":
        check_backbone(parse(spec), vit)
        last.register_forward_hook(lambda _, __, output: 1.1 * output)
    with raises_naming(ValueError, spec, type(last).__name__):
        check_backbone(parse(spec), vit)


def test_all_leaves_out_what_a_backbone_does_not_support() -> None:
    vit = tiny("differential attention")
    backbone = Backbone(BackboneRef(name="vit_dwee", sha256="0" * 64), vit, (0.5,) * 3, (0.5,) * 3, 32, ())
    fitting, notes = all_methods(backbone)
    names = {method.spec() for method in fitting}
    assert "lora" in names
    for name in ("vqt", "cvpt", "e2vpt", "gate_vpt"):
        assert name not in names
        assert any(name in note and "DiffAttention" in note for note in notes)


@pytest.mark.parametrize("backbone", ["plain", "Swin"])
def test_a_small_difference_of_a_block_is_seen(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One per cent of what a block with LayerScale 1e-4 adds, which an absolute tolerance does not see."""
    block = blocks_of(tiny(backbone))[0].block
    for name in ("attn.proj", "mlp.fc2"):
        for parameter in block.get_submodule(name).parameters():
            torch.nn.init.normal_(parameter, std=1e-5)
    forward = type(block).forward
    monkeypatch.setattr(blocks, "_compared", set())
    branches(copy.deepcopy(block))
    monkeypatch.setattr(blocks, "_compared", set())
    monkeypatch.setattr(type(block), "forward", lambda self, x: x + 1.01 * (forward(self, x) - x))
    with pytest.raises(ValueError, match=timm.__version__):
        branches(block)


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
    injected = inject(vit, parse("lora"), replace(NO_DROP_PATH, drop_path=0.1), 0).vit
    rates = [getattr(ref.block.drop_path1, "drop_prob", 0.0) for ref in blocks_of(injected)]
    assert rates == pytest.approx([0.1 * i / 11 for i in range(12)])
    assert all(getattr(ref.block.drop_path1, "drop_prob", 0.0) == 0 for ref in blocks_of(vit))


def test_weights_of_another_family_are_refused(tmp_path) -> None:
    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with raises_naming(BackboneError, "w.safetensors"):
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


@pytest.mark.parametrize("backbone", ["plain", "Swin"])
def test_blocks_that_timm_computes_otherwise_are_refused(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block = blocks_of(tiny(backbone))[0].block
    forward = type(block).forward
    monkeypatch.setattr(type(block), "forward", lambda self, x: forward(self, x) + x.sin())
    monkeypatch.setattr(blocks, "_compared", set())
    with pytest.raises(ValueError, match=timm.__version__):
        branches(block)
