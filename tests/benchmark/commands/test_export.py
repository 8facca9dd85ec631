"""`export`: the exported model computes the same as the trained one in timm and peft."""

import argparse
import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from vtab_peft.benchmark.checkpoints.model_card import card
from vtab_peft.benchmark.checkpoints.restore import TrainedModel, timm_arguments
from vtab_peft.benchmark.commands import export as exporting
from vtab_peft.benchmark.method_checks.tiny_models import sample_images
from vtab_peft.benchmark.storage.json_io import StoreError
from vtab_peft.datasets.cache import Preprocessing
from vtab_peft.datasets.pixels import decode
from vtab_peft.methods import METHODS

CLASSES = 5
LORA_LIKE = (
    "lora",
    "rslora",
    "lora_fused",
    "pissa",
    "aoft_lora",
    "aoft_lora_paper",
    "aoft_adapter",
    "fact_tt",
    "adalora",
)
"""Methods that must export to the format of peft."""
MERGEABLE = sorted(n for n, m in METHODS.items() if m.mergeable() and not m.stands_for_many)


@torch.no_grad()
def logits(trained: TrainedModel) -> Tensor:
    return trained.checkpoint.head(trained.injected.vit(sample_images()))


def write(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def check_merged(trained: TrainedModel, folder: Path) -> None:
    write(exporting.merged(trained), folder)
    by_config = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    name, arguments = timm_arguments(trained.backbone, CLASSES)
    explicit = timm.create_model(name, pretrained=False, **arguments).eval()
    explicit.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(by_config(sample_images()), logits(trained), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(explicit(sample_images()), logits(trained), rtol=1e-4, atol=1e-4)


def check_peft(trained: TrainedModel, folder: Path) -> None:
    from peft import PeftModel

    write(exporting.peft(trained), folder)
    name, arguments = timm_arguments(trained.backbone, CLASSES)
    plain = timm.create_model(name, pretrained=False, **arguments)
    missing = plain.load_state_dict(trained.backbone.vit.state_dict(), strict=False)
    assert set(missing.missing_keys) == {"head.weight", "head.bias"}
    model = PeftModel.from_pretrained(plain, str(folder)).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(sample_images()), logits(trained), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", ["lora", "aoft_adapter", "full", "gps"])
def test_merged_model_in_timm_computes_the_same(
    spec: str, make_trained: Callable[[str], TrainedModel], tmp_path: Path
) -> None:
    check_merged(make_trained(spec), tmp_path / "merged")


@pytest.mark.slow
@pytest.mark.parametrize("spec", MERGEABLE)
def test_every_mergeable_method_in_timm(spec: str, make_trained: Callable[[str], TrainedModel], tmp_path: Path) -> None:
    check_merged(make_trained(spec), tmp_path / "merged")


@pytest.mark.parametrize("spec", ["lora(sites='qkvo,fc1,fc2', rank=2)", "dora", "aoft_lora_released"])
def test_lora_like_methods_in_peft(spec: str, make_trained: Callable[[str], TrainedModel], tmp_path: Path) -> None:
    check_peft(make_trained(spec), tmp_path / "peft")


def test_fused_map_has_the_rank_of_both_sites(make_trained: Callable[[str], TrainedModel], tmp_path: Path) -> None:
    folder = write(exporting.peft(make_trained("lora(rank=3)")), tmp_path / "peft")
    tensors = load_file(folder / "adapter_model.safetensors")
    up = tensors["base_model.model.blocks.0.attn.qkv.lora_B.weight"]
    query, key, value = up.chunk(3)
    assert up.shape == (3 * 128, 6)
    assert key.abs().max() < 1e-6 * query.abs().max()
    assert value.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("spec", MERGEABLE)
def test_every_mergeable_method_in_peft_or_refused(
    spec: str, make_trained: Callable[[str], TrainedModel], tmp_path: Path
) -> None:
    trained = make_trained(spec)
    refusal = ""
    try:
        check_peft(trained, tmp_path / "peft")
    except ValueError as error:
        refusal = str(error)
    assert not refusal or ("--as" in refusal and spec not in LORA_LIKE)


def test_timm_replaces_the_classifier_and_the_channels(
    make_trained: Callable[[str], TrainedModel], tmp_path: Path
) -> None:
    """As after timm's own `save_for_hf`: a new head keeps the features, and one channel sums the three."""
    trained = make_trained("lora")
    name = f"local-dir:{write(exporting.merged(trained), tmp_path / 'merged')}"
    with torch.no_grad():
        features = timm.create_model(name, pretrained=True, num_classes=0).eval()(sample_images())
        torch.testing.assert_close(trained.checkpoint.head(features), logits(trained), rtol=1e-4, atol=1e-4)
        other = timm.create_model(name, pretrained=True, num_classes=10).eval()
        torch.testing.assert_close(
            other.forward_head(other.forward_features(sample_images()), pre_logits=True), features
        )
        assert other(sample_images()).shape == (4, 10)
        grey = timm.create_model(name, pretrained=True, in_chans=1).eval()
        repeated = sample_images()[:, :1].expand(-1, 3, -1, -1)
        whole = timm.create_model(name, pretrained=True).eval()
        torch.testing.assert_close(grey(sample_images()[:, :1]), whole(repeated), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("spec", "form"), [("full", "--as merged"), ("linear", "--as"), ("ssf", "--as merged")])
def test_other_than_low_rank_updates_are_refused(
    spec: str, form: str, make_trained: Callable[[str], TrainedModel]
) -> None:
    with pytest.raises(ValueError, match=form):
        exporting.peft(make_trained(spec))


def test_an_export_that_fails_leaves_nothing_and_an_empty_folder_is_taken(
    make_trained: Callable[[str], TrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "load_trained", lambda *_: make_trained("lora"))
    monkeypatch.setattr(exporting, "card", lambda *_: "")
    asked = argparse.Namespace(cell="x", results=tmp_path, weights=None, plugin=[], backbone=None, form="merged")
    asked.to = tmp_path / "out"
    asked.to.mkdir()
    write_bytes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "config.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, data)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        with pytest.raises(StoreError, match="No space"):
            exporting.export(asked)
    assert not [*tmp_path.rglob("*.*")]
    assert exporting.export(asked) == 0
    assert {path.name for path in asked.to.iterdir()} == {"model.safetensors", "config.json", "README.md"}


def test_refused_merge_names_another_form(
    make_trained: Callable[[str], TrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="--as adapter"):
        exporting.merged(make_trained("adaptformer"))
    plain_merge = METHODS["lora"].merge

    def merge(self: Any, vit: Any) -> None:
        plain_merge(self, vit)
        vit.register_buffer("more", torch.zeros(1))  # as a bias where the plain model has none

    monkeypatch.setattr(METHODS["lora"], "merge", merge)
    with pytest.raises(ValueError, match=r"differs from the plain .* in more; .*--as adapter"):
        exporting.merged(make_trained("lora"))


@pytest.mark.parametrize("framing", exporting.CROPS)
def test_timm_preprocesses_as_in_training(
    framing: str, make_trained: Callable[[str], TrainedModel], tmp_path: Path
) -> None:
    trained = make_trained("linear")
    recipe = replace(trained.spec.recipe, framing=framing)
    spec = replace(trained.spec, recipe=recipe, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    trained = replace(trained, checkpoint=replace(trained.checkpoint, spec=spec))
    folder = write(exporting.merged(trained), tmp_path / "merged")
    pixels = torch.randint(256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "picture.png")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    by_timm = transform(Image.open(tmp_path / "picture.png"))
    decoded = decode(tmp_path / "picture.png", Preprocessing(32, "bicubic", framing))  # pyright: ignore
    torch.testing.assert_close(by_timm, trained.input(torch.from_numpy(decoded)[None])[0], rtol=0, atol=1e-6)


def test_a_merge_that_leaves_more_than_weights_is_refused(
    make_trained: Callable[[str], TrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exported files hold weights alone, so a changed activation would be lost."""
    plain_inject = METHODS["lora"].inject

    def inject(self: Any, vit: Any) -> None:
        plain_inject(self, vit)
        vit.blocks[0].mlp.act = torch.nn.ReLU()

    monkeypatch.setattr(METHODS["lora"], "inject", inject)
    for form in (exporting.merged, exporting.peft):
        with pytest.raises(ValueError, match=r"more than weights.*--as adapter"):
            form(make_trained("lora"))


@pytest.mark.parametrize(
    ("form", "line"),
    [("adapter", "--plugin FILE"), ("merged", "# first import"), ("peft", "# first import")],
)
def test_the_card_names_the_plug_in_of_the_backbone(
    form: str, line: str, make_trained: Callable[[str], TrainedModel]
) -> None:
    trained, sha256 = make_trained("lora"), "ab" * 32
    assert line not in card(trained, form, "out")
    plugged = replace(trained, backbone=replace(trained.backbone, plugin=sha256))
    text = card(plugged, form, "out")
    assert line in text
    assert sha256 in text
