"""`export` and `predict`: a saved adapter is found by run ID and predicts as in its run."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from vtab_peft.benchmark.checkpoints import adapter_checkpoint
from vtab_peft.benchmark.checkpoints.lookup import find_adapter
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.storage.json_io import StoreError

WEIGHTS = ("--weights", "random")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, make_task_in: Callable[..., Path]) -> tuple[Path, Path]:
    """Return a task folder with class names, and the record of a bf16 run on its val split with a saved adapter."""
    root = tmp_path_factory.mktemp("trained")
    task = make_task_in(root)
    (task / "classes.txt").write_text("red\ngreen\nblue | or #so\n")
    run = ["run", "--backbone", "toy_vit", *WEIGHTS, "--recipe", "uniform_3ep", "--threads", "1", "--seeds", "0"]
    run += ["--tasks", str(task), "--methods", "lora", "--results", str(root / "results"), "--split", "val"]
    assert main([*run, "--keep-adapters"]) == 0
    (record,) = (root / "results" / "runs").rglob("*.json")
    return task, record


def results_of(record: Path) -> Path:
    return next(folder.parent for folder in record.parents if folder.name == "runs")


@pytest.mark.slow
def test_exported_adapter_is_deterministic(trained: tuple[Path, Path], tmp_path: Path) -> None:
    record = trained[1]
    for name in ("one", "two"):
        export = ["export", record.stem[:6], "--as", "adapter", "--to", str(tmp_path / name), *WEIGHTS]
        assert main([*export, "--results", str(results_of(record))]) == 0
    files = [(tmp_path / name / "adapter.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    assert len(files[0]) < 300_000
    found = adapter_checkpoint.read(tmp_path / "one" / "adapter.safetensors")
    assert found.record == json.loads(record.read_text())
    assert found.classes == ["red", "green", "blue | or #so"]


@pytest.mark.slow
def test_exported_adapter_can_be_exported_again(trained: tuple[Path, Path], tmp_path: Path) -> None:
    record = json.loads(trained[1].read_text())
    adapter = str(trained[1].with_suffix(".safetensors"))
    assert main(["export", adapter, "--as", "adapter", "--to", str(tmp_path / "a"), *WEIGHTS]) == 0
    again = ["export", str(tmp_path / "a"), "--as", "merged", "--to", str(tmp_path / "merged"), *WEIGHTS]
    assert main(again) == 0
    text = (tmp_path / "merged" / "README.md").read_text()
    for fact in (f"{100 * record['result']['accuracy']:.2f} %", record["key"], record["spec"]["task"]["data"]):
        assert fact in text
    assert r"blue \| or #so" in text
    assert main(again) == 2, "the folder is not empty"


def test_predictions_equal_those_of_the_run(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, record = trained
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    lines = (task / "val200.txt").read_text().split("\n")[:-1]
    for place, line in enumerate(lines):
        shutil.copy(task / line.split(" ")[0], pictures / f"{place:03}.png")
    adapter = str(record.with_suffix(".safetensors"))
    assert main(["predict", str(pictures), "--adapter", adapter, *WEIGHTS]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    expected = np.load(record.with_suffix(".npz"))["predictions"].tolist()
    assert [int(row["class"]) for row in rows] == expected
    assert [row["file"] for row in rows] == [f"{place:03}.png" for place in range(len(lines))]
    assert [row["name"] for row in rows] == [["red", "green", "blue | or #so"][label] for label in expected]
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)


@pytest.mark.slow
def test_damaged_image_is_named_and_skipped(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, record = trained
    (tmp_path / "in").mkdir()
    shutil.copy(next((task / "images").iterdir()), tmp_path / "in" / "good.png")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "in" / "notes.txt").write_text("not meant to be one")
    adapter = str(record.with_suffix(".safetensors"))
    out = tmp_path / "out.csv"
    assert main(["predict", str(tmp_path / "in"), "--adapter", adapter, "--output", str(out), *WEIGHTS]) == 1
    assert [line.split(",")[0] for line in out.read_text().splitlines()] == ["file", "good.png"]
    complaint = capsys.readouterr().err
    assert "broken.jpg" in complaint
    assert "notes.txt" not in complaint


@pytest.mark.slow
def test_links_are_followed_and_omissions_named(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, record = trained
    image = next((task / "images").iterdir())
    inside, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    beside = ("../elsewhere/b.Png", "../elsewhere/c/d.png")
    for file in ("a.png", "sub/.hidden.PNG", "sub/notes.txt", "sub/photo", *beside):
        (inside / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, inside / file)
    links = {"linked": elsewhere, "sub/back": inside, "to_sub": inside / "sub", "nowhere": tmp_path / "absent"}
    for name, target in {**links, "linked_file.png": image, "gone.png": tmp_path / "absent.png"}.items():
        (inside / name).symlink_to(target)
    (elsewhere / "c" / "loop").symlink_to(elsewhere)
    out = tmp_path / "out.csv"
    adapter = str(record.with_suffix(".safetensors"))
    assert main(["predict", str(inside), "--adapter", adapter, "--output", str(out), *WEIGHTS]) == 1
    found = pd.read_csv(out)["file"].tolist()
    assert found == ["a.png", "linked/b.Png", "linked/c/d.png", "linked_file.png", "sub/.hidden.PNG"]
    printed = capsys.readouterr()
    assert printed.out.split()[0] == "5"
    assert str(out) in printed.out
    skipped = [line for line in printed.err.splitlines() if line.startswith(("skipped", "left out"))]
    named = ("nowhere:", "gone.png:", "to_sub,", "sub/back,", "linked/c/loop,", "(1 .txt, 1 without any)")
    assert [[name for name in named if name in line] for line in skipped] == [[name] for name in named]


def test_file_name_that_is_not_utf8(trained: tuple[Path, Path], tmp_path: Path) -> None:
    task, record = trained
    (tmp_path / "in").mkdir()
    for name in (b"caf\xe9.png", "café.png".encode()):
        shutil.copy(next((task / "images").iterdir()), tmp_path / "in" / os.fsdecode(name))
    adapter, out = str(record.with_suffix(".safetensors")), tmp_path / "out.csv"
    assert main(["predict", str(tmp_path / "in"), "--adapter", adapter, "--output", str(out), *WEIGHTS]) == 0
    assert set(pd.read_csv(out)["file"]) == {r"caf\udce9.png", "café.png"}


@pytest.mark.parametrize("command", [["predict", "images", "--adapter", "0"], ["speed", "--device", "cpu"]])
def test_output_that_is_a_folder_is_refused_at_once(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--output", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_folder_without_images_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert main(["predict", str(folder), "--adapter", str(trained[1].with_suffix(".safetensors"))]) == 2


def test_other_weights_are_refused(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", str(trained[1]), "--as", "adapter", "--to", str(tmp_path / "a"), "--weights", "random:1"]
    assert main(export) == 2
    said = capsys.readouterr().err
    assert "toy_vit" in said
    assert "BackboneRef" not in said
    assert not (tmp_path / "a").exists()


def keep(results: Path, key: str, *, adapter: bool = True) -> Path:
    folder = results / "runs" / "vit" / "own" / "flowers" / "lora"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{key}.json").write_text("{}")
    if adapter:
        (folder / f"{key}.safetensors").write_text("")
    return folder / f"{key}.safetensors"


def test_run_id_prefix_finds_the_latest_repetition(tmp_path: Path) -> None:
    keep(tmp_path, "ab" * 8)
    latest = keep(tmp_path, "ab" * 8 + ".10")
    keep(tmp_path, "ab" * 8 + ".9")
    keep(tmp_path, "ac" * 8)
    assert find_adapter("ab", tmp_path) == latest
    assert find_adapter("ab" * 8, tmp_path) == latest


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a", r"(?s)2 .*'a'.*abababababababab"),
        ("babababababababa", r"(?s)'babababababababa'.*abababababababab  vit · own · flowers · lora"),
        ("lora", r"(?s)'lora'.*abababababababab"),
        ("resnet", r"(?s)'resnet'.*abababababababab"),
        ("", "''"),
        ("dd", r"dd.*safetensors.*-adapters"),
        ("some/file.safetensors", r"some/file\.safetensors"),
    ],
)
def test_unknown_run_lists_what_is_stored(text: str, facts: str, tmp_path: Path) -> None:
    keep(tmp_path, "ab" * 8)
    keep(tmp_path, "ac" * 8)
    keep(tmp_path, "dd" * 8, adapter=False)
    with pytest.raises(StoreError, match=facts):
        find_adapter(text, tmp_path)


def test_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    keep(tmp_path / "results", "ab" * 8)
    (tmp_path / "merged").mkdir()
    with pytest.raises(StoreError, match=r"merged.*adapter\.safetensors.*--as adapter"):
        find_adapter(str(tmp_path / "merged"), tmp_path / "results")


def test_no_saved_adapter_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="-adapters"):
        find_adapter("ab", tmp_path)


@pytest.mark.slow
def test_a_name_in_a_file_starts_no_download(
    make_trained: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str] = []

    def hub(repository: str, *_: Any) -> str:
        asked.append(repository)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    model, name = make_trained("lora"), "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    strange = replace(model.spec, backbone=replace(model.spec.backbone, name=name))
    file = tmp_path / "a.safetensors"
    file.write_bytes(replace(model.checkpoint, spec=strange).to_bytes())
    export = ["export", str(file), "--as", "adapter", "--to", str(tmp_path / "out")]
    assert main(export) == 2
    assert asked == []
    assert f"--backbone {name}" in capsys.readouterr().err
    assert main([*export, "--backbone", "toy_vit"]) == 2
    assert asked == []
    assert main([*export, "--backbone", name]) == 2
    assert len(asked) == 1


def test_an_adapter_of_nans_is_refused(
    make_trained: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_trained("lora").checkpoint
    name = next(iter(checkpoint.adapter))
    broken = {**checkpoint.adapter, name: torch.full_like(checkpoint.adapter[name], float("nan"))}
    (tmp_path / "a.safetensors").write_bytes(replace(checkpoint, adapter=broken).to_bytes())
    export = ["export", str(tmp_path / "a.safetensors"), "--as", "adapter", "--to", str(tmp_path / "out"), *WEIGHTS]
    assert main(export) == 1
    assert name in capsys.readouterr().err
