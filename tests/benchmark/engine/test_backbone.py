"""Backbones load from every format, and wrong names and files are refused."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from raises import raises_naming
from safetensors.torch import save_file
from vtab_peft.benchmark.engine.backbone import BackboneError, load
from vtab_peft.benchmark.engine.weights import load_weights

NAME = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model(NAME, pretrained=False, num_classes=10).state_dict()


def test_classifier_of_another_size_is_left_out_with_a_note(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    backbone = load(NAME, str(tmp_path / "w.safetensors"))
    assert "head.bias, head.weight" in backbone.notes[0]
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert not any(p.requires_grad for p in backbone.vit.parameters())
    own = backbone.vit.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own)
    assert len(backbone.ref.sha256) == 64


def test_pth_files_are_read_without_running_code(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "w.pth")
    assert torch.equal(load(NAME, str(tmp_path / "w.pth")).vit.norm.weight, state["norm.weight"])
    torch.save({"state_dict": Path}, tmp_path / "evil.pth")
    with raises_naming(BackboneError, tmp_path / "evil.pth"):
        load(NAME, str(tmp_path / "evil.pth"))


def test_google_npz_is_read(tmp_path: Path) -> None:
    """Write known weights in the layout of the original checkpoints and read them back."""
    torch.manual_seed(1)
    vit = timm.create_model(NAME, pretrained=False, num_classes=0)
    np.savez(tmp_path / "w.npz", **google_arrays(vit))
    own = load(NAME, str(tmp_path / "w.npz")).vit.state_dict()
    for name, tensor in vit.state_dict().items():
        torch.testing.assert_close(own[name], tensor, msg=name)


def google_arrays(vit: torch.nn.Module) -> dict[str, np.ndarray]:
    state = {name: tensor.detach().numpy() for name, tensor in vit.state_dict().items()}
    d, heads = vit.embed_dim, vit.blocks[0].attn.num_heads
    arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    for i in range(len(vit.blocks)):
        ours, theirs = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        for number, norm in ((0, "norm1"), (2, "norm2")):
            arrays[f"{theirs}/LayerNorm_{number}/scale"] = state[f"{ours}.{norm}.weight"]
            arrays[f"{theirs}/LayerNorm_{number}/bias"] = state[f"{ours}.{norm}.bias"]
        weights, biases = (np.split(state[f"{ours}.attn.qkv.{part}"], 3) for part in ("weight", "bias"))
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            arrays[f"{attention}/{name}/kernel"] = weight.T.reshape(d, heads, -1)
            arrays[f"{attention}/{name}/bias"] = bias.reshape(heads, -1)
        arrays[f"{attention}/out/kernel"] = state[f"{ours}.attn.proj.weight"].T.reshape(heads, -1, d)
        arrays[f"{attention}/out/bias"] = state[f"{ours}.attn.proj.bias"]
        for number, fc in enumerate(("fc1", "fc2")):
            arrays[f"{theirs}/MlpBlock_3/Dense_{number}/kernel"] = state[f"{ours}.mlp.{fc}.weight"].T
            arrays[f"{theirs}/MlpBlock_3/Dense_{number}/bias"] = state[f"{ours}.mlp.{fc}.bias"]
    return arrays


NPZ_CASES = {
    "another patch size": ({"patch_size": 32}, {}, ("patch size 32 instead of 16",)),
    "other channels": ({"in_chans": 1}, {}, ("channels 1 instead of 3",)),
    "another width": ({"embed_dim": 32}, {}, ("width 32 instead of 64",)),
    "another depth": ({"depth": 7}, {}, ("depth 7 instead of 6",)),
    "another number of heads": ({"num_heads": 4}, {}, ("heads 4 instead of 2",)),
    "a value that is not finite": ({}, {"Transformer/encoder_norm/scale": np.full(64, np.nan)}, ("norm.weight",)),
    "no square of positions": ({}, {"Transformer/posembed_input/pos_embedding": np.zeros((1, 105, 64))}, (105,)),
}
"""Changes of timm's `test_vit`, changed arrays, and facts that the refusal names."""


@pytest.mark.parametrize("case", NPZ_CASES)
def test_npz_files_of_another_architecture_are_refused(case: str, tmp_path: Path) -> None:
    changes, arrays, facts = NPZ_CASES[case]
    vit = timm.create_model("test_vit", num_classes=0, **changes)
    np.savez(tmp_path / "w.npz", **(google_arrays(vit) | arrays))
    with raises_naming(BackboneError, tmp_path / "w.npz", *facts):
        load("test_vit.r160_in1k", str(tmp_path / "w.npz"))


def test_what_an_npz_file_lacks_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **google_arrays(timm.create_model("test_vit", num_classes=0)))
    scaled = timm.create_model("test_vit", num_classes=0, init_values=1.0)
    with raises_naming(BackboneError, tmp_path / "w.npz", "blocks.0.ls1.gamma"):
        load_weights(scaled, tmp_path / "w.npz", "test_vit")


def test_npz_positions_are_interpolated_with_a_note(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **google_arrays(timm.create_model("test_vit", num_classes=0)))
    assert load("test_vit.r160_in1k", str(tmp_path / "w.npz")).notes == ()
    (note,) = load("test_vit.r160_in1k", str(tmp_path / "w.npz"), image_size=64).notes
    assert "10 x 10 to 4 x 4" in note


def test_position_embedding_is_interpolated(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    backbone = load(NAME, str(tmp_path / "w.safetensors"), image_size=96)
    assert backbone.image_size == 96
    assert backbone.vit.pos_embed.shape == (1, 1 + 36, 192)
    with torch.no_grad():
        assert backbone.vit(torch.zeros(1, 3, 96, 96)).shape == (1, 192)


def test_random_weights_have_a_hash_for_each_seed() -> None:
    first, again, other = (load("toy_vit", weights) for weights in ("random", "random:0", "random:1"))
    assert first.ref == again.ref != other.ref


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("vit_base_patch16_224_in21k", ("vit_base_patch16_224.orig_in21k", "vit_base_patch16_224.augreg_in21k")),
        ("vit_base_patch16_224", ("vit_base_patch16_224.augreg_in21k",)),
        ("vit_base_patch16_224.augreg_in21", ("vit_base_patch16_224.augreg_in21k",)),
        ("vit_bse_patch16_224.augreg_in21k", ("vit_bse_patch16_224",)),
        ("resnet50.a1_in1k", ("resnet50.a1_in1k", "timm.models.resnet")),
        ("convnext_tiny", ("'convnext_tiny'", "timm.models.convnext")),
        ("vit_small_r26_s32_224", ("'vit_small_r26_s32_224'", "HybridEmbed")),
        ("deit3_base_patch16_224.fb_in1k", ("nowhere.safetensors",)),
        ("../etc/passwd", ("'../etc/passwd'", "list backbones", "--plugin FILE")),
    ],
)
def test_wrong_names_are_refused(name: str, facts: tuple[str, ...]) -> None:
    with raises_naming(BackboneError, *facts):
        load(name, "nowhere.safetensors" if "." in name else None)


def test_weights_that_do_not_fit_are_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    cases: dict[tuple[str, ...], dict[str, torch.Tensor]] = {
        ("norm.weight",): {k: v for k, v in state.items() if k != "norm.weight"},
        ("surprise",): {**state, "surprise": torch.zeros(1)},
        ("norm.bias", "[7]", "[192]"): {**state, "norm.bias": torch.zeros(7)},
    }
    for facts, wrong in cases.items():
        save_file(wrong, file)
        with raises_naming(BackboneError, file, *facts):
            load(NAME, str(file))


@pytest.mark.parametrize(
    "weights",
    [
        "absent.safetensors",
        "random:x",
        "random:-1",
        f"random:{2**63}",
        "/",
        *(f"{{tmp}}/text.{end}" for end in ("safetensors", "npz", "pth", "h5")),
    ],
)
def test_unreadable_weights_are_refused(weights: str, tmp_path: Path) -> None:
    for suffix in ("safetensors", "npz", "pth", "h5"):
        (tmp_path / f"text.{suffix}").write_text("not weights")
    with pytest.raises(BackboneError, match=re.escape(weights.format(tmp=tmp_path))):
        load(NAME, weights.format(tmp=tmp_path))


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("kind", ["torch", "bare pickle", "numpy"])
def test_pickles_that_run_code_are_refused(kind: str, tmp_path: Path) -> None:
    mark, file = tmp_path / "it ran", tmp_path / ("w.npz" if kind == "numpy" else "w.pth")
    if kind == "torch":
        torch.save({"norm.weight": Bomb(mark)}, file)
    elif kind == "numpy":
        np.savez(file, cls=np.array([Bomb(mark)], dtype=object))
    else:
        file.write_bytes(pickle.dumps({"norm.weight": Bomb(mark)}))
    with pytest.raises(BackboneError, match=re.escape(str(file))):
        load(NAME, str(file))
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves the npz open
@pytest.mark.parametrize("suffix", ["safetensors", "pth", "npz"])
def test_truncated_files_are_refused(suffix: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        save_file(state, file)
    elif suffix == "pth":
        torch.save(state, file)
    else:
        np.savez(file, **{name: tensor.numpy() for name, tensor in state.items()})
    whole = file.read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(BackboneError, match=re.escape(str(file))):
            load(NAME, str(file))


def test_headers_longer_than_the_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with raises_naming(BackboneError, file):
        load(NAME, str(file))


def test_hub_failures_name_the_file_and_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repository: str, filename: str) -> str:
        raise OSError(f"no route to {repository}/{filename}.\nTry again.")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with raises_naming(BackboneError, "no route to timm/vit_tiny_patch16_224", "--weights FILE"):
        load(NAME)


def test_weights_come_from_the_hub_when_no_file_is_given(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repository, filename: str(file))
    assert load(NAME).ref == load(NAME, str(file)).ref


@pytest.mark.parametrize("cached", [False, True])
def test_only_a_real_download_reports_progress(
    cached: bool, state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    reported: list[object] = []

    def download(repository: str, filename: str) -> str:
        reported.append(f"{repository}/{filename}")
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(file) if cached else None)
    load(NAME, on_progress=lambda *progress: reported.append(progress))
    (asked,) = [what for what in reported if isinstance(what, str)]
    what = f"downloading weights of {NAME}"
    assert reported == ([asked] if cached else [(what, 0, 1), asked, (what, 1, 1)])
