"""`speed`: FLOPs equal the closed form, and the measurements are printed and stored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands.throughput import MATRIX, Ticks, counted_flops, step_flops
from vtab_peft.benchmark.engine.backbone import load
from vtab_peft.benchmark.recipes import UNIFORM
from vtab_peft.methods import parse

FP32 = replace(UNIFORM, drop_path=0.0)


def forward_flops(d: int, blocks: int, tokens: int, patch: int) -> float:
    """Return the FLOPs of the matrix products of a plain ViT (a multiply-add counts as two)."""
    linear = 2 * tokens * (3 + 1 + 4 + 4) * d * d  # qkv, o, fc1, fc2
    attention = 2 * 2 * tokens * tokens * d  # q k^T, and its product with v
    return blocks * (linear + attention) + 2 * (tokens - 1) * 3 * patch**2 * d


def test_flops_equal_the_closed_form() -> None:
    backbone = load("toy_vit", "random")
    vit = backbone.vit
    patch = vit.patch_embed.patch_size[0]
    forward = forward_flops(vit.embed_dim, len(vit.blocks), vit.patch_embed.num_patches + 1, patch)
    size = backbone.image_size
    assert counted_flops(vit, torch.randn(1, 3, size, size)) == pytest.approx(forward)
    head, features = nn.Linear(vit.num_features, 10), torch.randn(3, vit.num_features)
    assert step_flops(parse("linear"), backbone, FP32, 3) == counted_flops(head, features), "features are cached"
    lora = step_flops(parse("lora(rank=1)"), backbone, FP32, 2) / 2 / forward
    assert 1.8 < lora < 2.2, "without weight gradients a backward pass costs about one forward pass"
    pixels = 2 * vit.patch_embed.num_patches * 3 * patch**2 * vit.embed_dim  # no gradient of the pixels
    assert step_flops(parse("full"), backbone, FP32, 8) == 8 * (3 * forward - pixels)


def test_flops_of_vit_b_16_equal_published_ones() -> None:
    assert forward_flops(768, 12, 197, 16) == pytest.approx(35.1e9, rel=0.01)


def test_epoch_time_is_the_median_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 6.0, 7.5])
    monkeypatch.setattr("vtab_peft.benchmark.commands.throughput.time.perf_counter", lambda: next(clock))
    ticks = Ticks()
    for epoch in range(4):
        ticks("train", epoch + 1, 4)
    assert ticks.seconds_per_epoch() == 1.5


@pytest.mark.slow
def test_speed_prints_a_table_and_stores_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MATRIX, "cpu", 256)  # bf16 is slow on processors without instructions for it
    file = tmp_path / "speed.json"
    arguments = ["--backbone", "toy_vit", "--methods", "lora", "linear", "--batch", "8", "--threads", "1"]
    assert main(["speed", *arguments, "--images", "24", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    rows = json.loads(file.read_text())["rows"]
    assert [row["method"] for row in rows] == ["lora", "linear"]
    for row in rows:
        assert f"{row['train_images_per_second']:,.0f}" in printed
        assert row["share_of_limit"] > 0
        assert row["train_images_per_second"] > 0 < row["evaluation_images_per_second"]


def test_the_probe_computes_features_of_augmented_images_in_each_step() -> None:
    """Cached features would be those of other images, so the training computes them again."""
    backbone, probe = load("toy_vit", "random"), parse("linear")
    cached, computed = (
        step_flops(probe, backbone, replace(UNIFORM, augmentation=augmentation), 8) for augmentation in ("none", "flip")
    )
    assert computed > 1000 * cached


def test_unknown_backbone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", "--backbone", "vit_tiny"]) == 2
    assert "vit_tiny" in capsys.readouterr().err
