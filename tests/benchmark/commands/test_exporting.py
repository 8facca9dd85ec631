"""What is exported is the same model in other people's formats, and says what it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from vtab_peft.benchmark.checkpoints.restore import TrainedModel, timm_arguments
from vtab_peft.benchmark.commands import export as exporting
from vtab_peft.benchmark.method_checks.tiny_models import pictures
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
"""Of those that fit into peft's format, the ones to count on."""
MERGEABLE = sorted(n for n, m in METHODS.items() if m.mergeable() and not m.stands_for_many)


@torch.no_grad()
def logits(cell: TrainedModel) -> Tensor:
    return cell.kept.head(cell.injected.vit(pictures()))


def write(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def check_merged(cell: TrainedModel, folder: Path) -> None:
    write(exporting.merged(cell), folder)
    by_config = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    name, arguments = timm_arguments(cell.backbone, CLASSES)
    by_hand = timm.create_model(name, pretrained=False, **arguments).eval()
    by_hand.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(by_config(pictures()), logits(cell), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(by_hand(pictures()), logits(cell), rtol=1e-4, atol=1e-4)


def check_peft(cell: TrainedModel, folder: Path) -> None:
    from peft import PeftModel

    write(exporting.peft(cell), folder)
    name, arguments = timm_arguments(cell.backbone, CLASSES)
    plain = timm.create_model(name, pretrained=False, **arguments)
    missing = plain.load_state_dict(cell.backbone.vit.state_dict(), strict=False)
    assert set(missing.missing_keys) == {"head.weight", "head.bias"}
    model = PeftModel.from_pretrained(plain, str(folder)).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(pictures()), logits(cell), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", ["lora", "aoft_adapter", "full", "gps"])
def test_a_merged_model_loads_in_plain_timm_and_computes_the_same(
    spec: str, make_cell: Callable[[str], TrainedModel], tmp_path: Path
) -> None:
    check_merged(make_cell(spec), tmp_path / "merged")


@pytest.mark.slow
@pytest.mark.parametrize("spec", MERGEABLE)
def test_every_mergeable_method_exports_a_plain_model_that_computes_the_same(
    spec: str, make_cell: Callable[[str], TrainedModel], tmp_path: Path
) -> None:
    check_merged(make_cell(spec), tmp_path / "merged")


@pytest.mark.parametrize("spec", ["lora(sites='qkvo,fc1,fc2', rank=2)", "dora", "aoft_lora_released"])
def test_lora_like_methods_load_in_peft_and_compute_the_same(
    spec: str, make_cell: Callable[[str], TrainedModel], tmp_path: Path
) -> None:
    check_peft(make_cell(spec), tmp_path / "peft")


def test_two_sites_of_a_fused_map_share_its_rank_and_leave_the_third_alone(
    make_cell: Callable[[str], TrainedModel], tmp_path: Path
) -> None:
    folder = write(exporting.peft(make_cell("lora(rank=3)")), tmp_path / "peft")
    tensors = load_file(folder / "adapter_model.safetensors")
    up = tensors["base_model.model.blocks.0.attn.qkv.lora_B.weight"]
    query, key, value = up.chunk(3)
    assert up.shape == (3 * 128, 6)
    assert key.abs().max() < 1e-6 * query.abs().max()
    assert value.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("spec", MERGEABLE)
def test_every_mergeable_method_loads_in_peft_or_is_refused_with_the_way_out(
    spec: str, make_cell: Callable[[str], TrainedModel], tmp_path: Path
) -> None:
    cell = make_cell(spec)
    refusal = ""
    try:
        check_peft(cell, tmp_path / "peft")
    except ValueError as error:
        refusal = str(error)
    assert not refusal or ("use --as" in refusal and spec not in LORA_LIKE)


@pytest.mark.parametrize(
    ("spec", "reason"), [("full", "also changes"), ("linear", "no linear map"), ("ssf", "use --as merged")]
)
def test_what_is_no_low_rank_change_of_linear_maps_is_no_lora(
    spec: str, reason: str, make_cell: Callable[[str], TrainedModel]
) -> None:
    with pytest.raises(ValueError, match=reason):
        exporting.peft(make_cell(spec))


def test_what_cannot_be_merged_is_refused_with_the_way_out(make_cell: Callable[[str], TrainedModel]) -> None:
    with pytest.raises(ValueError, match="--as adapter"):
        exporting.merged(make_cell("adaptformer"))


@pytest.mark.parametrize("framing", exporting.CROPS)
def test_timm_prepares_images_by_the_exported_config_as_the_run_did(
    framing: str, make_cell: Callable[[str], TrainedModel], tmp_path: Path
) -> None:
    cell = make_cell("linear")
    recipe = replace(cell.spec.recipe, framing=framing)
    spec = replace(cell.spec, recipe=recipe, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    cell = replace(cell, kept=replace(cell.kept, spec=spec))
    folder = write(exporting.merged(cell), tmp_path / "merged")
    pixels = torch.randint(256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "picture.png")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    by_timm = transform(Image.open(tmp_path / "picture.png"))
    decoded = decode(tmp_path / "picture.png", Preprocessing(32, "bicubic", framing))  # pyright: ignore
    torch.testing.assert_close(by_timm, cell.input(torch.from_numpy(decoded)[None])[0], rtol=0, atol=1e-6)
