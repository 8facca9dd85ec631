"""`cost`: FLOPs equal counts by hand, merged and skipping models compute the same, records are typed and stored."""

import copy
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import cost as command
from vtab_peft.benchmark.commands.cost import deployed_form
from vtab_peft.benchmark.commands.throughput import counted_flops, step_flops
from vtab_peft.benchmark.engine.backbone import Backbone, load
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.recipes import UNIFORM
from vtab_peft.benchmark.storage.costs import Cost, load_cost, load_costs, path_of, save_cost
from vtab_peft.datasets.reading import InvalidFile
from vtab_peft.methods import METHODS, parse

STILL = replace(UNIFORM, drop_path=0.0)


FORWARD = 4 * (2 * 17 * 12 * 128**2 + 4 * 17**2 * 128) + 2 * 16 * 768 * 128
"""FLOPs of toy_vit: 4 blocks of width 128 with 17 tokens, and 16 patches of 768 numbers."""


def flops_of(vit: torch.nn.Module, size: int) -> int:
    return counted_flops(copy.deepcopy(vit).eval().requires_grad_(False), torch.randn(1, 3, size, size))


def test_flops_of_lora_on_vit_tiny_equal_the_count_by_hand() -> None:
    backbone = load("vit_tiny_patch16_224", "random")
    d, n, blocks, rank = 192, 197, 12, 8
    products = [
        (196, 16 * 16 * 3, d),  # patch embedding: rows, inner size, columns
        *[(n, d, 3 * d), (n, d, d), (n, d, 4 * d), (n, 4 * d, d)] * blocks,  # qkv, output, MLP
        *[(n, d // 3, n), (n, n, d // 3)] * 3 * blocks,  # scores and their product with the values, of 3 heads
    ]
    plain = sum(2 * rows * inner * columns for rows, inner, columns in products)
    lora = [(n, d, 2 * rank), (n, 2 * rank, 3 * d)] * blocks  # down for q and v; up on a block diagonal of q, k, v
    added = sum(2 * rows * inner * columns for rows, inner, columns in lora)
    method = parse("lora(rank=8)")
    assert all(block.attn.fused_attn for block in backbone.vit.blocks), "fused attention is counted too"
    assert flops_of(backbone.vit, 224) == plain
    injected = inject(backbone.vit, method, STILL, 0).vit
    assert flops_of(injected, 224) == plain + added
    form, merged = deployed_form(method, injected)
    assert form == "merged"
    assert flops_of(merged, 224) == plain


@pytest.mark.parametrize("spec", ["dora", "pace"])
def test_step_flops_are_those_of_the_whole_batch(spec: str, backbone: Backbone) -> None:
    """DoRA makes weights once per step, and PACE passes each image twice."""
    method, images = parse(spec), torch.randn(6, 3, 64, 64)
    vit = inject(backbone.vit, method, STILL, 0).vit.train()
    assert step_flops(method, backbone, STILL, 6) == counted_flops(vit, torch.cat([images] * method.copies))


def test_skipped_tokens_save_their_mlp_and_change_no_feature(backbone: Backbone) -> None:
    method = parse("dyt(scale=0.5)")
    masked = inject(backbone.vit, method, STILL, 0).vit.eval()
    for parameter in masked.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    form, skipping = deployed_form(method, masked)
    assert form == "with skipped tokens"
    tokens: list[int] = []
    for block in skipping.blocks:
        block.mlp.inner.register_forward_hook(lambda _, x, y: tokens.append(x[0].numel() // x[0].shape[-1]))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(masked(image), skipping(image), atol=1e-5)
        tokens.clear()
        saved = counted_flops(masked, image) - counted_flops(skipping, image)
    skipped = len(skipping.blocks) * 17 - sum(tokens)
    assert 0 < skipped < len(skipping.blocks) * 16
    assert saved == skipped * 2 * 2 * 128 * 4 * 128


@pytest.mark.parametrize("spec", ["linear", "bitfit", "adaptformer"])
def test_models_without_another_form_are_deployed_as_trained(spec: str, backbone: Backbone) -> None:
    vit = inject(backbone.vit, parse(spec), STILL, 0).vit
    assert deployed_form(parse(spec), vit) == ("trained", vit)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """Return a results folder with the costs of two methods on toy_vit, and the command that measured them."""
    monkeypatch.setitem(command.IMAGES, "cpu", 4)
    monkeypatch.setattr(command, "PASSES", 1)
    monkeypatch.setattr(command, "SECONDS", 0.0)
    options = ["--backbone", "toy_vit", "--train-batch", "2", "--batch", "2", "1", "--precision", "fp32"]
    words = ["cost", "--methods", "lora", "linear", *options, "--device", "cpu", "--threads", "1"]
    words += ["--results", str(tmp_path / "results")]
    assert main(words) == 0
    return tmp_path / "results", words


def test_costs_are_stored_once(stored: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    root, words = stored
    costs, problems = load_costs(root)
    assert not problems
    assert {cost.method.name: cost.deployed_as for cost in costs} == {"lora": "merged", "linear": "trained"}
    for cost in costs:
        assert cost.setup.batches == (1, 2)
        assert cost.training.images_per_second * cost.training.step_milliseconds == pytest.approx(2000)
        assert cost.trainable_params == (16384 if cost.method.name == "lora" else 0)
        assert cost.trained.flops >= cost.deployed.flops == FORWARD
        assert {"torch", "timm", "vtab-peft"} <= set(cost.provenance["versions"])
    measured: list[Cost] = []
    monkeypatch.setattr(command, "save_cost", lambda _, cost: measured.append(cost))
    assert main(words) == 0
    assert not measured
    assert main([*words, "--images", "4"]) == 0
    assert not measured
    assert main([*words, "--images", "6", "--methods", "linear"]) == 0
    assert [cost.training.images for cost in measured] == [6]
    assert main([*words, "--repeat"]) == 0
    assert len(measured) == 3


def test_stored_costs_are_shown_from_a_folder_that_cannot_be_written(
    stored: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, words = stored
    monkeypatch.setattr(command, "require_writable", lambda folder: 1 / 0)
    assert main(words) == 0
    assert "lora" in capsys.readouterr().out
    with pytest.raises(ZeroDivisionError):
        main([*words, "--repeat"])


def test_all_and_other_methods_are_each_measured_once(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    monkeypatch.setattr(command, "all_methods", lambda _: ([parse("lora"), parse("linear")], []))
    names = ["all", "LoRA", "lora(rank=4)", "lora(rank=8)"]
    assert [method.spec() for method in command._methods(names, backbone)] == ["lora", "linear", "lora(rank=4)"]


@pytest.mark.parametrize("words", ["cost --train-batch 2", "speed"])
def test_a_method_that_does_not_fit_is_named_before_any_is_measured(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words.split(), "--backbone", "toy_vit", "--methods", "lora", "apla(rank=1000)"]) == 2
    assert "apla(rank=1000) does not fit toy_vit" in (said := capsys.readouterr().err)
    assert "lora:" not in said


def test_a_folder_that_cannot_be_written_ends_it_before_any_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "costs").write_text("a file")
    words = ["cost", "--train-batch", "2", "--backbone", "toy_vit", "--methods", "linear"]
    assert main([*words, "--results", str(tmp_path)]) == 1
    assert str(tmp_path / "costs") in (said := capsys.readouterr().err)
    assert "linear:" not in said


def test_an_error_of_a_plug_in_has_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = "@method('unmerged')\nclass Unmerged(BitFit):\n    def merge(self, vit):\n        vit.nothing.fold()\n"
    imports = "from vtab_peft.methods import method\nfrom vtab_peft.methods.baselines import BitFit\n"
    Path("unmerged.py").write_text(imports + plain)
    words = "cost --backbone toy_vit --precision fp32 --train-batch 2 --images 4 --batch 1 --device cpu --threads 1"
    with patch.dict(METHODS):
        assert main([*words.split(), "--plugin", "unmerged.py", "--methods", "unmerged"]) == 2
    assert "unmerged cannot be measured: AttributeError" in (said := capsys.readouterr().err)
    assert "in unmerged.py:6: vit.nothing.fold()" in said
    assert "Traceback" not in said


def test_a_record_belongs_to_its_name(stored: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    root, words = stored
    cost = load_costs(root)[0][0]
    path = path_of(root, cost.backbone, cost.method, cost.setup)
    assert load_cost(path) == cost
    path.write_text(path.read_text().replace('"threads": 1', '"threads": 2'))
    with pytest.raises(InvalidFile) as caught:
        load_cost(path)
    assert caught.value.field == "method"
    assert main(words) == 2
    assert "--repeat" in capsys.readouterr().err
    with pytest.raises(ValueError, match="milliseconds"):
        save_cost(root, replace_latency(cost, -1.0))


def replace_latency(cost: Cost, value: float) -> Cost:
    import msgspec

    wrong = msgspec.structs.replace(cost.trained.latency[0], milliseconds=value)
    return msgspec.structs.replace(
        cost, trained=msgspec.structs.replace(cost.trained, latency=[wrong, *cost.trained.latency[1:]])
    )
