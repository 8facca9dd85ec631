"""`analyze` compared with the tensors of the adapters."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vtab_peft.benchmark.analysis.adapters import _bounds, analyze_adapter, analyze_weights
from vtab_peft.benchmark.checkpoints.restore import TrainedModel
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.method_checks.tiny_models import NO_DROP_PATH, tiny
from vtab_peft.methods import METHODS, parse
from vtab_peft.methods.projections import projections

MakeTrained = Callable[..., TrainedModel]

WITH_PROJECTIONS = {
    *(
        "lora",
        "lora_plus",
        "rslora",
        "lora_fused",
        "dora",
        "pissa",
        "bi_lora",
        "bi_adaptformer",
        "adaptformer",
        "spt_lora",
    ),
    *("convpass", "convpass_attn", "dtl", "dtl_plus", "mona", "mlae", "hydra"),
    *("dyt", "res_tuning", "sa2vp", "synqt", "vapt"),
    *(name for name in METHODS if name.startswith(("aoft_lora", "aoft_adapter", "adapter_"))),
}


@pytest.mark.parametrize("spec", ["lora", "aoft_lora", "adaptformer", "adapter_plus", "bi_lora", "dora"])
def test_both_projections_of_every_module_are_found(spec: str, make_trained: MakeTrained) -> None:
    model = make_trained(spec)
    found = list(projections(model.injected.vit))
    width = model.backbone.vit.embed_dim
    assert found
    for pair in found:
        assert pair.down.shape == pair.up.shape
        assert pair.down.shape[1] == width
        assert pair.down.shape[0] in (8, 32)


def test_other_methods_have_no_projections(make_trained: MakeTrained) -> None:
    for spec in ("bitfit", "ssf", "kadaptation"):
        assert not list(projections(make_trained(spec).injected.vit))


@pytest.mark.parametrize("spec", ["lora", "pissa", "aoft_lora(scale='ones')"])
def test_gain_of_a_linear_update_is_its_spectral_norm(spec: str, make_trained: MakeTrained) -> None:
    model = make_trained(spec)
    first = next(projections(model.injected.vit))
    assert first.name == "blocks.0.attn.qkv.updates.q"
    query = "blocks.0.attn.qkv.weight"
    added = (model.merged(torch.float64).state_dict()[query] - model.backbone.vit.state_dict()[query])[:128]
    assert first.gain == pytest.approx(float(np.linalg.norm(added.numpy(), 2)), rel=1e-4)


@pytest.mark.parametrize(("spec", "both"), [("adaptformer(scale=0.7)", True), ("adapter_plus", False)])
def test_the_gain_of_a_bottleneck_is_never_exceeded(spec: str, both: bool, make_trained: MakeTrained) -> None:
    model = make_trained(spec)
    (first, *_) = projections(model.injected.vit)
    module = model.injected.vit.get_submodule(first.name)
    x, y = torch.randn(2, 50, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        moved = module(x, x) - module(y, y) if both else module(x) - module(y)
    assert first.gain is not None
    assert float((moved.norm(dim=1) / (x - y).norm(dim=1)).max()) <= first.gain


def test_no_gain_with_more_between_the_projections(make_trained: MakeTrained) -> None:
    assert {pair.gain for pair in projections(make_trained("convpass").injected.vit)} == {None}


def test_update_is_merged_minus_pretrained_weight(make_trained: MakeTrained) -> None:
    model = make_trained("lora(sites='v', rank=2)")
    sizes = [size for size in analyze_adapter(model).sizes if size.what.startswith("update")]
    assert {(size.what, size.when) for size in sizes} == {("update of v", "trained")}, "the initial update is zero"
    assert len(sizes) == 4
    state = model.injected.vit.state_dict()
    update = state["blocks.2.attn.qkv.updates.v.b"] @ state["blocks.2.attn.qkv.updates.v.a"] * 4
    weight = model.backbone.vit.state_dict()["blocks.2.attn.qkv.weight"][256:]
    values = np.linalg.svd(update.numpy(), compute_uv=False)
    assert sizes[2].spectral == pytest.approx(values[0], rel=1e-4)
    assert sizes[2].frobenius == pytest.approx(float(update.norm()), rel=1e-4)
    assert sizes[2].relative == pytest.approx(float(update.norm() / weight.norm()), rel=1e-4)
    shares = values[:2] / values[:2].sum()
    assert sizes[2].effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)


def test_exactly_orthogonal_projections_stay_orthogonal(make_trained: MakeTrained) -> None:
    exact = analyze_adapter(make_trained("aoft_lora(form='exact')")).angles
    assert {(group.side, group.when) for group in exact} == {
        (side, when) for side in ("down", "up") for when in ("start", "trained")
    }
    assert all(group.angles.spread < 1e-5 for group in exact)
    assert all(group.angles.distance > group.null.distance[1] for group in exact)
    start = [group for group in analyze_adapter(make_trained("lora")).angles if group.when == "start"]
    assert [group.side for group in start] == ["down"], "up-projections of zeros have no direction"
    assert start[0].angles.spread == pytest.approx(1, abs=0.15)


def test_rows_and_columns_of_every_pretrained_site_are_measured(make_trained: MakeTrained) -> None:
    groups = analyze_weights(make_trained("linear"))
    names = {f"pretrained {site}" for site in ("q", "k", "v", "o", "fc1", "fc2")}
    assert {(group.of, group.side) for group in groups} == {(of, s) for of in names for s in ("rows", "columns")}
    assert {g.side: g.angles.dimension for g in groups if g.of == "pretrained fc1"} == {"rows": 128, "columns": 512}
    assert all(group.angles.spread == pytest.approx(1, abs=0.1) for group in groups), "these weights are random"


def test_bound_uses_the_inputs_of_the_modules(make_trained: MakeTrained) -> None:
    model = make_trained("lora")
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
    bounds = analyze_adapter(model, images).bounds
    assert [bound.name for bound in bounds][:2] == [f"blocks.0.attn.qkv.updates.{site}" for site in "qv"]
    with torch.no_grad():
        tokens = model.injected.vit.patch_embed(model.input(torch.from_numpy(images)))
        tokens = model.injected.vit._pos_embed(tokens)
        read = model.injected.vit.blocks[0].norm1(tokens).mean(dim=1)
    assert bounds[0].inputs == 7
    assert bounds[0].at_most == pytest.approx(float(read.norm()), rel=1e-5)
    assert bounds[0].expectation <= bounds[0].at_most
    assert bounds[0].bound == pytest.approx(bounds[0].gain * bounds[0].expectation / 7)


def stored(model: TrainedModel, folder: Path) -> str:
    path = folder / f"{model.spec.run_id()}.safetensors"
    path.write_bytes(model.checkpoint.to_bytes())
    return str(path)


@pytest.mark.slow
def test_same_runs_give_the_same_bytes(
    make_trained: MakeTrained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [stored(make_trained(spec), tmp_path) for spec in ("lora", "adaptformer")]
    for name in ("one", "two"):
        assert main(["analyze", *paths, "--weights", "random", "--to", str(tmp_path / name)]) == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    assert {"analysis.md", "analysis.json", "angles.csv", "sizes.csv", "angles.svg", "updates.pdf"} < set(written)
    data = json.loads(written["analysis.json"])
    assert {row["of"] for row in data["angles"]} > {"lora", "adaptformer"}
    printed = capsys.readouterr().out
    assert not any(mark in printed for mark in ("\\", "|:")), "no Markdown on a terminal"
    shown = [re.sub(r"[\s|\\]+", " ", line).strip() for line in written["analysis.md"].decode().splitlines()]
    rows = [line for line in shown if line.startswith(("pretrained ", "lora "))]
    assert rows
    assert set(rows) <= {re.sub(r"\s+", " ", line).strip() for line in printed.splitlines()}


@pytest.mark.slow
def test_stale_files_of_an_earlier_analysis_are_removed(make_trained: MakeTrained, tmp_path: Path) -> None:
    """A linear probe has no sizes, so their files are removed; other files in the folder stay."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.md").write_text("mine")
    for spec in ("lora", "linear"):
        assert main(["analyze", stored(make_trained(spec), tmp_path), "--weights", "random", "--to", str(out)]) == 0
        assert (out / "sizes.csv").exists() is (spec == "lora")
    assert {path.name for path in out.iterdir()} == {
        *("analysis.md", "analysis.json", "angles.csv", "angles.svg", "angles.pdf", "notes.md")
    }
    assert "Norms and ranks" not in (out / "analysis.md").read_text()


def test_runs_of_two_backbones_are_an_error(
    make_trained: MakeTrained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [stored(make_trained("lora", weights), tmp_path) for weights in ("random", "random:1")]
    assert main(["analyze", *paths, "--weights", "random", "--to", str(tmp_path / "out")]) == 2
    assert "trained on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_of_another_task_are_an_error(
    make_trained: MakeTrained, make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored(make_trained("lora", data="d0" * 8), tmp_path)
    task = ("--task", str(make_task()))
    assert main(["analyze", path, "--weights", "random", "--to", str(tmp_path / "out"), *task]) == 2
    assert "d0" * 8 in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name, cls in METHODS.items() if not cls.stands_for_many))
def test_every_method_can_be_analyzed(name: str, make_trained: MakeTrained) -> None:
    model = make_trained(name)
    found = analyze_adapter(model)
    assert bool([group for group in found.angles if group.side in ("down", "up")]) == (name in WITH_PROJECTIONS)


def test_analysis_is_written_into_its_results_folder(
    make_trained: MakeTrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter, results = stored(make_trained("linear"), tmp_path), tmp_path / "other"
    assert main(["analyze", adapter, "--weights", "random", "--results", str(results)]) == 0
    assert (results / "analysis" / "analysis.md").exists()
    assert not (tmp_path / "results").exists()


def test_bound_counts_images_and_not_windows() -> None:
    """The second stage of this Swin has four windows."""
    vit = tiny("Swin", img_size=64)
    model: Any = SimpleNamespace(injected=inject(vit, parse("lora"), NO_DROP_PATH, 0), input=lambda x: x / 255)
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 64, 64), dtype=np.uint8)
    bounds = _bounds(model, list(projections(model.injected.vit)), images)
    assert {bound.inputs for bound in bounds} == {7}
