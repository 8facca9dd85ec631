"""Checkpoints of Hugging Face's ViTs give timm's model the features that transformers computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from raises import raises_naming
from safetensors.torch import load_file, save_file
from timm.layers.mlp import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from vtab_peft.benchmark.engine.backbone import BackboneError
from vtab_peft.benchmark.engine.weights import load_weights

transformers: Any = pytest.importorskip("transformers", reason="comes with the extra peft")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
TIMM = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8, "num_classes": 0}
SWIGLU = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU, "mlp_ratio": 88 * 2 / 32}
MODELS: dict[str, tuple[str, dict, dict]] = {
    "ViTModel": ("ViT", {"intermediate_size": 128}, {}),
    "ViTForImageClassification": ("ViT", {"intermediate_size": 128, "qkv_bias": False}, {"qkv_bias": False}),
    "ViTForMaskedImageModeling": ("ViT", {"intermediate_size": 128}, {}),
    "Dinov2Model": ("Dinov2", {}, {"init_values": 1.0}),
    "Dinov2ForImageClassification": ("Dinov2", {"use_swiglu_ffn": True}, {"init_values": 1.0, **SWIGLU}),
    "Dinov2WithRegistersModel": (
        "Dinov2WithRegisters",
        {},
        {"init_values": 1.0, "reg_tokens": 4, "no_embed_class": True},
    ),
}
"""Class of transformers -> configuration, its options, and timm's options for the same model."""


def made(name: str, folder: Path, **more: Any) -> Any:
    """Return a random model of transformers, saved in the folder; no tensor is constant."""
    kind, options, _ = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**SIZES, **options, **more)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_features_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model, vit = made(name, tmp_path), VisionTransformer(**TIMM, **MODELS[name][2]).eval()
    load_weights(vit, tmp_path / "model.safetensors", "vit")
    images = torch.randn(3, 3, 32, 32)
    encoder = getattr(model, model.base_model_prefix, model)
    with torch.no_grad():
        expected = encoder(pixel_values=images).last_hidden_state[:, 0]
        torch.testing.assert_close(vit(images), expected, rtol=1e-3, atol=1e-3)


def test_names_of_transformers_5_are_read(tmp_path: Path) -> None:
    """In memory transformers 5 has other names than in its files."""
    model, vit = made("ViTModel", tmp_path), VisionTransformer(**TIMM)
    save_file(model.state_dict(), tmp_path / "memory.safetensors")
    assert "layers.0.attention.q_proj.weight" in load_file(tmp_path / "memory.safetensors")
    load_weights(vit, tmp_path / "model.safetensors", "vit")
    expected = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    load_weights(vit, tmp_path / "memory.safetensors", "vit")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in vit.state_dict().items())


def test_classifier_and_pooler_are_left_out_with_a_note(tmp_path: Path) -> None:
    made("ViTModel", tmp_path)
    _, (note,) = load_weights(VisionTransformer(**TIMM), tmp_path / "model.safetensors", "vit")
    assert "pooler.dense.weight" in note


@pytest.mark.parametrize(
    ("changes", "fact"),
    [({"num_heads": 2}, "heads 4 instead of 2"), ({"patch_size": 16}, "patch size 8"), ({"depth": 3}, "depth 2")],
)
def test_another_architecture_is_refused(changes: dict, fact: str, tmp_path: Path) -> None:
    made("ViTModel", tmp_path)
    with raises_naming(BackboneError, tmp_path, fact):
        load_weights(VisionTransformer(**TIMM | changes), tmp_path / "model.safetensors", "vit")


def test_a_distillation_token_is_refused(tmp_path: Path) -> None:
    transformers.DeiTModel(transformers.DeiTConfig(**SIZES, intermediate_size=128)).save_pretrained(tmp_path)
    with raises_naming(BackboneError, tmp_path, "distillation tokens 1 instead of 0"):
        load_weights(VisionTransformer(**TIMM), tmp_path / "model.safetensors", "vit")
