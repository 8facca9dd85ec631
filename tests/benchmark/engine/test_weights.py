"""Weights are matched with the architecture before timm adapts them; checkpoints are read as people have them."""

import argparse
import json
import os
import pathlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from in_process import LOCAL_BACKEND, InProcessBackend
from raises import raises_naming
from safetensors.torch import save_file
from torch import Tensor
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine.backbone import BackboneError, load
from vtab_peft.benchmark.engine.weights import load_weights
from vtab_peft.benchmark.method_checks.tiny_models import tiny

NAME = "test_vit.r160_in1k"
"""timm's tiny ViT: patch 16, image 160, width 64, 6 blocks, 2 heads."""
State = dict[str, Tensor]


def tensors(seed: int = 0, architecture: str = "test_vit", **changes: object) -> State:
    torch.manual_seed(seed)
    return timm.create_model(architecture, num_classes=0, **changes).state_dict()


def features(weights: Path, name: str = NAME, image_size: int | None = None) -> Tensor:
    backbone = load(name, str(weights), image_size)
    torch.manual_seed(1)
    with torch.no_grad():
        return backbone.vit.eval()(torch.randn(2, 3, backbone.image_size, backbone.image_size))


def saved(state: object, file: Path) -> Path:
    torch.save(state, file)
    return file


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"patch_size": 8}, ("patch size 8 instead of 16",)),
        ({"patch_size": 32}, ("patch size 32 instead of 16",)),
        ({"in_chans": 1}, ("channels 1 instead of 3",)),
        ({"embed_dim": 32}, ("width 32 instead of 64",)),
        ({"depth": 5}, ("depth 5 instead of 6",)),
        ({"depth": 7}, ("depth 7 instead of 6",)),
        ({"reg_tokens": 4}, ("registers 4 instead of 0",)),
        ({"class_token": False, "global_pool": "avg"}, ("class tokens 0 instead of 1",)),
        ({"mlp_ratio": 2.0}, ("blocks.0.mlp.fc1.weight",)),
        ({"qk_norm": True}, ("blocks.0.attn.q_norm.weight",)),
        ({"init_values": 1.0}, ("blocks.0.ls1.gamma",)),
    ],
    ids=lambda value: "-".join(map(str, value.items() if isinstance(value, dict) else value)),
)
def test_another_architecture_is_refused(changes: dict, facts: tuple[str, ...], tmp_path: Path) -> None:
    file = saved(tensors(**changes), tmp_path / "w.pth")
    with raises_naming(BackboneError, file, NAME, *facts):
        load(NAME, str(file))


def test_a_distilled_deit_is_refused(tmp_path: Path) -> None:
    plain = tensors(architecture="deit_tiny_patch16_224", depth=1)
    two = {"dist_token": torch.zeros(1, 1, 192), "pos_embed": torch.zeros(1, 198, 192)}
    file = saved(plain | two, tmp_path / "w.pth")
    with raises_naming(BackboneError, file, "distillation tokens 1 instead of 0"):
        load("deit_tiny_patch16_224.fb_in1k", str(file))


def test_positions_that_are_no_square_are_refused(tmp_path: Path) -> None:
    file = saved(tensors() | {"pos_embed": torch.zeros(1, 105, 64)}, tmp_path / "w.pth")
    with raises_naming(BackboneError, file, "pos_embed", 105):
        load(NAME, str(file))


def test_positions_of_another_size_are_interpolated_with_a_note(tmp_path: Path) -> None:
    state = tensors()
    file = saved(state, tmp_path / "w.pth")
    assert load(NAME, str(file)).notes == ()
    (note,) = load(NAME, str(file), image_size=64).notes
    assert "w.pth" in note
    assert "10 x 10 to 4 x 4" in note
    expected = timm.layers.resample_abs_pos_embed(state["pos_embed"], [4, 4])
    torch.testing.assert_close(load(NAME, str(file), image_size=64).vit.pos_embed.data, expected)


@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")
def test_windows_of_a_swin_are_matched(tmp_path: Path) -> None:
    swin, head = tiny("Swin"), {"head.fc.weight": torch.zeros(2, 64)}  # tells older timm the layout
    same = saved(tiny("Swin").state_dict() | head, tmp_path / "same.pth")
    assert ["head.fc.weight" in note for note in load_weights(swin, same, "swin")[1]] == [True]
    narrow = saved(tiny("Swin", window_size=2).state_dict() | head, tmp_path / "narrow.pth")
    note, _ = load_weights(swin, narrow, "swin")[1]
    assert "windows of 2 to 4" in note
    for changes, fact in (({"patch_size": 2}, "patch size 2"), ({"depths": (2, 4)}, "depth 2 x 4")):
        other = saved(tiny("Swin", **changes).state_dict(), tmp_path / "other.pth")
        with raises_naming(BackboneError, other, fact):
            load_weights(swin, other, "swin")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    state = tensors()
    state["blocks.3.attn.qkv.weight"][5, 7] = value
    file = saved(state, tmp_path / "w.pth")
    with raises_naming(BackboneError, file, "blocks.3.attn.qkv.weight"):
        load(NAME, str(file))
    save_file({**tensors(), "head.weight": torch.full((2, 64), value)}, tmp_path / "head.safetensors")
    load(NAME, str(tmp_path / "head.safetensors"))  # the classifier is not used


def test_integers_are_no_weights(tmp_path: Path) -> None:
    state = tensors()
    state["norm.weight"] = state["norm.weight"].to(torch.int8)
    with raises_naming(BackboneError, "norm.weight", "int8"):
        load(NAME, str(saved(state, tmp_path / "w.pth")))


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ("model", "model_ema"),
        ("state_dict", "state_dict_ema"),
        ("state_dict", "model_ema"),
        ("model_ema", None),
        ("state_dict_ema", None),
        ("teacher", None),
    ],
)
def test_which_of_several_models_was_read_is_told(taken: str, left: str | None, tmp_path: Path) -> None:
    content = {taken: tensors(0), "epoch": 3, "args": None} | ({left: tensors(1)} if left else {})
    file = saved(content, tmp_path / "w.pth")
    (note,) = load(NAME, str(file)).notes
    assert repr(taken) in note
    assert left is None or repr(left) in note
    assert torch.equal(features(file), features(saved(tensors(0), tmp_path / "plain.pth")))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model."])
def test_prefixes_of_wrappers_are_stripped(prefix: str, tmp_path: Path) -> None:
    file = saved({"model": {prefix + name: tensor for name, tensor in tensors().items()}}, tmp_path / "w.pth")
    assert torch.equal(features(file), features(saved(tensors(), tmp_path / "plain.pth")))


def test_two_models_under_different_prefixes_are_refused(tmp_path: Path) -> None:
    both = {f"module.{name}": tensor for name, tensor in tensors(1).items()} | tensors(0)
    with raises_naming(BackboneError, "w.pth", "module."):
        load(NAME, str(saved(both, tmp_path / "w.pth")))


def test_files_are_recognised_by_content(tmp_path: Path) -> None:
    expected = features(saved(tensors(), tmp_path / "model_best.pth.tar"))
    save_file(tensors(), tmp_path / "weights")
    torch.save(tensors(), tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("weights", "old.safetensors"):
        assert torch.equal(features(tmp_path / name), expected)
    (tmp_path / "w.pth").write_bytes(b"\x1f\x8b archive")
    with raises_naming(BackboneError, tmp_path / "w.pth", "safetensors", ".npz"):
        load(NAME, str(tmp_path / "w.pth"))


def test_options_and_numbers_beside_the_weights_are_read(tmp_path: Path) -> None:
    args = argparse.Namespace(lr=0.1, output=pathlib.PosixPath("/x"))
    file = saved({"state_dict": tensors(), "args": args, "metric": np.float64(0.5)}, tmp_path / "w.pth")
    assert torch.equal(features(file), features(saved(tensors(), tmp_path / "plain.pth")))


class Config:
    """A class of the user's own, as training scripts save them."""


@pytest.mark.parametrize("zipped", [True, False])
def test_other_classes_are_refused_in_our_words(zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save({"model": tensors(), "config": Config()}, file, _use_new_zipfile_serialization=zipped)
    with raises_naming(BackboneError, file, *(["Config"] if zipped else [])) as caught:
        load(NAME, str(file))
    assert not any(part in str(caught.value) for part in ("weights_only", "\x1b"))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(2), {"epoch": 3}, {"model": {}}])
def test_files_without_a_state_dict_are_refused(content: object, tmp_path: Path) -> None:
    with raises_naming(BackboneError, "w.pth"):
        load(NAME, str(saved(content, tmp_path / "w.pth")))


def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with raises_naming(BackboneError, path):
            load(NAME, str(path))
    file = saved(tensors(), tmp_path / "w.pth")
    monkeypatch.setattr("vtab_peft.benchmark.engine.weight_files.LARGEST", 1000)
    with raises_naming(BackboneError, file, "1,000"):
        load(NAME, str(file))


def test_notes_reach_the_screen_once_and_the_record(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    state = tensors() | {"pos_embed": torch.zeros(1, 26, 64)}
    file, results = saved({"model": state, "model_ema": state}, tmp_path / "w.pth"), tmp_path / "results"
    ask = ["run", "--tasks", str(make_task()), "--results", str(results), "--methods", "linear", "--seeds", "0", "1"]
    assert main([*ask, "--backbone", NAME, "--recipe", "smoke", "--weights", str(file), "--threads", "1"]) == 0
    stored = [json.loads(path.read_text()) for path in (results / "runs").rglob("*.json")]
    assert len(stored) == 2
    printed = capsys.readouterr().err
    for record in stored:
        notes = record["provenance"]["weights"]
        assert ["model_ema" in notes[0], "5 x 5 to 10 x 10" in notes[1]] == [True, True]
        assert [printed.count(note) for note in notes] == [1, 1]
    other = saved(tensors(patch_size=32), tmp_path / "other.pth")
    assert main([*ask, "--backbone", NAME, "--recipe", "smoke", "--weights", str(other), "--threads", "1"]) == 2
    assert str(other) in capsys.readouterr().err
