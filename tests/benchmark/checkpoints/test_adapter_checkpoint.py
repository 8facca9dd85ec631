"""A stored adapter gives the same model again, and nothing else is taken for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from raises import raises_naming
from safetensors import safe_open
from safetensors.torch import save_file
from vtab_peft.benchmark.checkpoints import adapter_checkpoint
from vtab_peft.benchmark.checkpoints.model_card import card
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine import backbone as backbones
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.engine.transforms import preprocess
from vtab_peft.benchmark.method_checks.tiny_models import NO_DROP_PATH, sample_images, train_few_steps
from vtab_peft.benchmark.storage.json_io import StoreError
from vtab_peft.datasets.cache import Preprocessing, build
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.reading import InvalidFile
from vtab_peft.methods import METHODS, parse
from vtab_peft.methods.plugin import load_plugin

BASE = ("run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1", "--seeds", "0")


def train(results: Path, task: Path, method: str, *more: str) -> list[Path]:
    assert main([*BASE, "--tasks", str(task), "--methods", method, "--results", str(results), *more]) == 0
    return sorted((results / "runs").rglob("*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "aoft_adapter"])
def test_restored_model_predicts_the_same(method: str, make_task: Callable[..., Path], tmp_path: Path) -> None:
    task = make_task()
    (path,) = train(tmp_path / "results", task, method, "--keep-adapters")
    found = adapter_checkpoint.read(path.with_suffix(".safetensors"))
    assert found.spec.run_id() == path.stem
    vit = adapter_checkpoint.restore(found, backbones.load("toy_vit", "random", found.spec.recipe.image_size)).vit
    preprocessing = Preprocessing(found.spec.recipe.image_size, found.spec.interpolation)
    images = torch.from_numpy(np.array(build(folder_task(task), preprocessing, tmp_path / "cache").images("test")))
    spec = found.spec
    batch = preprocess(images, spec.recipe.image_size, spec)
    with torch.no_grad():
        predictions = found.head(vit(batch)).argmax(dim=1).numpy()
    assert predictions.tolist() == np.load(path.with_suffix(".npz"))["predictions"].tolist()


def test_model_of_a_plugin_asks_for_its_file(make_trained: Callable[..., Any]) -> None:
    found = make_trained("lora")
    mine = replace(found.spec.method, name="mine", spec="mine", plugin="ab" * 32)
    elsewhere = replace(found.checkpoint, spec=replace(found.spec, method=mine))
    with raises_naming(ValueError, "'mine'", "abababababab", "--plugin"):
        adapter_checkpoint.restore(elsewhere, found.backbone)


@pytest.mark.slow
def test_run_stored_without_adapter_is_repeated_once(make_task: Callable[..., Path], tmp_path: Path) -> None:
    task = make_task()
    assert len(train(tmp_path / "results", task, "lora")) == 1
    assert not list(tmp_path.rglob("*.safetensors"))
    assert len(train(tmp_path / "results", task, "lora", "--keep-adapters")) == 2
    assert len(train(tmp_path / "results", task, "lora", "--keep-adapters")) == 2
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


@pytest.mark.slow
def test_another_backbone_is_refused(make_task: Callable[..., Path], tmp_path: Path) -> None:
    (path,) = train(tmp_path / "results", make_task(), "lora", "--keep-adapters")
    found = adapter_checkpoint.read(path.with_suffix(".safetensors"))
    with raises_naming(ValueError, "toy_vit", "--weights"):
        adapter_checkpoint.restore(found, backbones.load("toy_vit", "random:1", found.spec.recipe.image_size))


@pytest.mark.parametrize("metadata", [None, {"key": "0" * 16}, {"key": "x", "spec": "[" * 99_999}, {"spec": "[]"}])
def test_metadata_that_are_no_spec_are_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    save_file({"head.weight": torch.zeros(3, 4), "head.bias": torch.zeros(3)}, tmp_path / "a.safetensors", metadata)
    with raises_naming(InvalidFile, "a.safetensors"):
        adapter_checkpoint.read(tmp_path / "a.safetensors")


def test_a_file_that_is_not_there_or_not_safetensors_is_named(tmp_path: Path) -> None:
    with raises_naming(StoreError, "none.safetensors"):
        adapter_checkpoint.read(tmp_path / "none.safetensors")
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04K\x01.")
    with raises_naming(InvalidFile, "pickle.safetensors"):
        adapter_checkpoint.read(tmp_path / "pickle.safetensors")


def test_card_of_a_plugin_has_its_option_and_hash(make_trained: Callable[..., Any]) -> None:
    text = card(make_trained("lora", plugin="ab" * 32), "adapter", "mine")
    assert "--adapter mine --plugin FILE\n" in text
    assert "ab" * 32 in text
    assert "plug" not in card(make_trained("lora"), "adapter", "mine")


def restored(spec: str, fake: SimpleNamespace, plugin: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of three steps of training that looked at images first, and of a restoration that did not."""
    backbone = backbones.load("toy_vit", "random", 32)
    injected, _ = train_few_steps(backbone.vit, parse(spec))
    run = fake.spec(method=spec, method_version=parse(spec).version, backbone=backbone.ref, plugin=plugin)
    found = adapter_checkpoint.AdapterCheckpoint(run, injected.adapter(), torch.nn.Linear(128, 2))
    with torch.no_grad():
        return injected.vit(sample_images()), adapter_checkpoint.restore(found, backbone).vit(sample_images())


def test_a_transposed_parameter_is_stored(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors refuses tensors that are not contiguous, which a run learnt after its training."""
    plain_inject = METHODS["lora"].inject

    def inject(self: Any, vit: Any) -> None:
        plain_inject(self, vit)
        for parameter in vit.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.t().contiguous().t()

    monkeypatch.setattr(METHODS["lora"], "inject", inject)
    injected, _ = train_few_steps(backbones.load("toy_vit", "random", 32).vit, parse("lora"))
    assert injected.adapter_bytes() > 0
    learned, loaded = restored("lora", fake)
    assert torch.equal(learned, loaded)


@pytest.mark.parametrize("method", ["gps", "sct"])
def test_adapter_stores_choices_made_from_images(method: str, fake: SimpleNamespace) -> None:
    learned, loaded = restored(method, fake)
    assert torch.equal(learned, loaded)


def test_data_initialised_method_needs_images_to_restore(fake: SimpleNamespace) -> None:
    with raises_naming(ValueError, "spt_lora", "training images"):
        restored("spt_lora", fake)


def test_method_of_another_plugin_file_is_refused(fake: SimpleNamespace) -> None:
    with raises_naming(ValueError, "abababababab", "lora", "--plugin"):
        restored("lora", fake, plugin="ab" * 32)


def test_a_plugin_file_edited_in_one_session_is_named(fake: SimpleNamespace, tmp_path: Path) -> None:
    """A process loads a file once, so a method that was edited between two runs of a notebook is the first one."""
    file, text = (
        tmp_path / "edited.py",
        "from vtab_peft.methods.lora import LoRA\nfrom vtab_peft.methods import method\n",
    )
    file.write_text(text + "method('edited')(type('Edited', (LoRA,), {'__module__': __name__}))\n")
    with patch.dict(METHODS):
        load_plugin(file)
        file.write_text("# edited\n" + file.read_text())
        with raises_naming(ValueError, "abababababab", str(file), "restart"):
            restored("edited", fake, plugin="ab" * 32)


def changed(method: str, part: str, change: Callable[[torch.Tensor], torch.Tensor], fake: SimpleNamespace) -> Any:
    """Return an adapter in whose tensors with `part` in their names something changed, and its backbone."""
    backbone = backbones.load("toy_vit", "random", 32)
    fresh = inject(backbone.vit, parse(method), NO_DROP_PATH, seed=0)
    adapter = {name: change(tensor) if part in name else tensor for name, tensor in fresh.adapter().items()}
    run = fake.spec(method=method, method_version=parse(method).version, backbone=backbone.ref)
    head = torch.nn.Linear(fresh.vit.num_features, 2)
    return adapter_checkpoint.AdapterCheckpoint(run, adapter, head), backbone


@pytest.mark.parametrize(
    ("method", "part", "change"),
    [
        ("apla", "index", lambda index: index + 1000),
        ("apla", "index", lambda index: -index - 1000),
        ("gps", "index", lambda index: index + 100_000),
        ("hst", "running_var", lambda variance: -variance),
    ],
)
def test_values_out_of_range_are_refused(
    method: str, part: str, change: Callable[[torch.Tensor], torch.Tensor], fake: SimpleNamespace
) -> None:
    with raises_naming(ValueError, "adapter", "damaged"):
        adapter_checkpoint.restore(*changed(method, part, change, fake))


@pytest.mark.parametrize(
    ("method", "part", "dtype"),
    [
        *(("lora", "q.a", dtype) for dtype in (torch.int64, torch.complex64, torch.bool)),
        *(("apla", "index", dtype) for dtype in (torch.float32, torch.bool)),
    ],
)
def test_tensors_of_another_kind_are_refused(method: str, part: str, dtype: torch.dtype, fake: SimpleNamespace) -> None:
    with raises_naming(ValueError, part, dtype):
        adapter_checkpoint.restore(*changed(method, part, lambda tensor: tensor.to(dtype), fake))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_floats_of_other_sizes_are_read(dtype: torch.dtype, fake: SimpleNamespace, tmp_path: Path) -> None:
    found, backbone = changed("lora", "q.a", lambda tensor: tensor.to(dtype), fake)
    (tmp_path / "a.safetensors").write_bytes(found.to_bytes())
    adapter_checkpoint.restore(adapter_checkpoint.read(tmp_path / "a.safetensors"), backbone)


def test_a_changed_number_is_refused_and_a_file_without_hash_is_read(fake: SimpleNamespace, tmp_path: Path) -> None:
    found, _ = changed("lora", "q.a", torch.clone, fake)
    file = tmp_path / "a.safetensors"
    file.write_bytes(found.to_bytes())
    with safe_open(file, framework="pt") as stored:
        metadata, tensors = stored.metadata(), {name: stored.get_tensor(name) for name in list(stored.keys())}
    save_file(tensors, file, metadata)
    assert adapter_checkpoint.read(file).spec == found.spec
    for changes in ({"head.bias": tensors["head.bias"] + 1e-6}, {"head.more": torch.zeros(1)}):
        save_file(tensors | changes, file, metadata)
        with raises_naming(InvalidFile, "a.safetensors", "damaged"):
            adapter_checkpoint.read(file)
    save_file(tensors, file, {name: metadata[name] for name in ("key", "spec")})
    assert adapter_checkpoint.read(file).spec == found.spec
