"""`load_adapter` of a stored run."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import vtab_peft
from in_process import LOCAL_BACKEND, InProcessBackend
from PIL import Image
from vtab_peft.benchmark import toy_vit
from vtab_peft.benchmark.engine import backbone as backbones
from vtab_peft.benchmark.storage.json_io import StoreError
from vtab_peft.methods.plugin import PluginError


@pytest.mark.parametrize("method", ["lora", "linear", "vqt"])
def test_loaded_adapter_predicts_what_the_run_predicted(
    method: str, make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    task, results = make_task(), tmp_path / "results"
    (task / "classes.txt").write_text("red\ngreen\nblue\n")
    (row,) = vtab_peft.run(
        methods=method,
        tasks=task,
        backbone="toy_vit",
        recipe="smoke",
        seeds=0,
        threads=1,
        save_adapters=True,
        results=results,
    ).itertuples()
    model = vtab_peft.load_adapter(row.key[:8], results)
    assert not model.training
    assert {name for name in vtab_peft.adapter(model) if "head" in name} == {"head.weight", "head.bias"}
    config = timm.data.resolve_model_data_config(model)
    known = backbones.load("toy_vit")
    assert (tuple(config["mean"]), tuple(config["std"])) == (known.mean, known.std)
    assert tuple(config["input_size"]) == (3, known.image_size, known.image_size)
    assert list(model.pretrained_cfg["label_names"]) == ["red", "green", "blue"]
    transform = timm.data.create_transform(**config)
    files = [line.rsplit(" ", 1) for line in (task / "test.txt").read_text().splitlines()]
    with torch.no_grad():
        logits = model(torch.stack([transform(Image.open(task / file).convert("RGB")) for file, _ in files]))
        if method != "vqt":
            vtab_peft.merge(model)
    assert logits.argmax(1).tolist() == np.load(Path(row.path).with_suffix(".npz"))["predictions"].tolist()


def test_files_may_be_paths_below_the_home_folder(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(toy_vit.WEIGHTS, tmp_path / "weights.safetensors")
    given = {"weights": Path("~/weights.safetensors"), "plugin": None}
    runs = vtab_peft.run(
        methods="linear",
        tasks=make_task(),
        backbone="toy_vit",
        recipe="smoke",
        seeds=0,
        save_adapters=True,
        results="~/results",
        **given,
    )
    for text in (runs["path"][0], "~/" + str(Path(runs["path"][0]).relative_to(tmp_path))):
        assert vtab_peft.load_adapter(text, **given).num_classes == 3


def test_missing_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="0123"):
        vtab_peft.load_adapter("0123", tmp_path)
    with pytest.raises(StoreError, match="there is no results folder"):
        vtab_peft.load_adapter("0123", tmp_path / "none")
    with pytest.raises(ValueError, match="run ID"):
        vtab_peft.load_adapter(None)


@pytest.mark.parametrize("as_given", [Path, str, lambda file: [file]])
def test_a_plugin_is_loaded_before_its_adapter(as_given: Callable, tmp_path: Path) -> None:
    file = tmp_path / "none.py"
    with pytest.raises(PluginError, match=re.escape(str(file))):
        vtab_peft.load_adapter("0123", tmp_path, plugin=as_given(file))
