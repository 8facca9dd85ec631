"""Fake results, made from a few facts and no model; and the parts of the smallest real run."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import BackboneRef, MethodRef, RunSpec, TaskRef
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.cache import CachedTask, Preprocessing, build
from vtab_peft.datasets.folder import folder_task

if TYPE_CHECKING:
    from vtab_peft.benchmark.engine.backbone import Backbone

BACKBONE = BackboneRef(name="vit_tiny_patch16_224.augreg_in21k_ft_in1k", sha256="5e" * 32)


@pytest.fixture(scope="module")
def backbone() -> "Backbone":
    """`toy_vit` with random weights."""
    from vtab_peft.benchmark.engine.backbone import load  # here, as most tests of results need no torch

    return load("toy_vit", "random")


@pytest.fixture
def data(make_task: Callable[..., Path], tmp_path: Path) -> CachedTask:
    """A small task of one's own, decoded at 64 pixels."""
    return build(folder_task(make_task()), Preprocessing(64, "bicubic"), tmp_path / "cache")


def fake_spec(
    task: str = "flowers",
    method: str = "lora",
    seed: int = 0,
    *,
    suite: str = "own",
    data: str | None = None,
    version: int = 1,
    provenance: str = "own",
    args: dict[str, Any] | None = None,
    spec: str | None = None,
    method_version: int = 1,
    plugin: str | None = None,
    asked: str | None = None,
    lr: float = 1e-3,
    recipe: str = "uniform_3ep",
    tuned: bool = False,
    split: str = "test",
    backbone: BackboneRef = BACKBONE,
) -> RunSpec:
    named = replace(RECIPES[recipe], tuned=tuned)
    return RunSpec(
        backbone=backbone,
        task=TaskRef(
            suite=suite,
            name=task,
            version=version,
            data=data or sha256(task.encode()).hexdigest()[:16],
            provenance=provenance,
        ),
        method=MethodRef(
            name=method, args=args or {}, version=method_version, plugin=plugin, spec=spec or method, asked=asked
        ),
        recipe=replace(named, lr=lr, image_size=224),
        recipe_base=f"{recipe}:0123abcd",  # fixed, so that golden files outlive a change of the recipe
        split=split,  # pyright: ignore[reportArgumentType]
        seed=seed,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
    )


def fake_record(
    accuracy: float = 0.5,
    *,
    title: str = "LoRA",
    group: str = "natural",
    params: int = 36864,
    configurations: int | None = None,
    **changes: Any,
) -> dict[str, Any]:
    result = {
        "accuracy": accuracy,
        "trainable_params": params,
        "head_params": 1930,
        "total_params": 5_500_000 + params,
        "train_seconds": 60.0,
        "eval_seconds": 4.0,
        "images_per_second": 50.0,
        "peak_bytes": 700_000_000,
        "adapter_bytes": 4 * params,
    }
    return {
        "facts": {"group": group, "classes": 10, "title": title}
        | ({"tuning": {"configurations": configurations}} if configurations else {}),
        "result": result | changes,
        "provenance": {"device": "cpu (fake)"},
    }


PutFake = Callable[..., RunSpec]


@pytest.fixture(scope="session")
def fake() -> SimpleNamespace:
    """`fake.spec(...)` and `fake.record(...)`, for tests that put runs themselves."""
    return SimpleNamespace(spec=fake_spec, record=fake_record)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def stored_files(store: Store) -> Callable[[], list[str]]:
    """Calling it lists all files in the results folder, from there."""
    return lambda: sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


@pytest.fixture
def put(store, monkeypatch) -> PutFake:
    """`put(task, method, seed, accuracy, title=..., ...)` stores a fake run and returns its spec."""
    monkeypatch.setattr("os.fsync", lambda _: None)  # the disk of a test need not survive a power cut

    def put(task: str, method: str, seed: int, accuracy: float, *, into: Store = store, **facts: Any) -> RunSpec:
        of_record = ("title", "group", "params", "train_seconds", "eval_seconds", "peak_bytes", "head_params")
        of_record += ("configurations", "oracle_accuracy", "loss_curve")
        record = fake_record(accuracy, **{name: facts.pop(name) for name in of_record if name in facts})
        spec = fake_spec(task, method, seed, **facts)
        into.save(spec, record, np.zeros(10, dtype=np.int64))
        return spec

    return put


@pytest.fixture
def make_trained() -> Callable[..., Any]:
    """`make_trained("lora")` returns a toy ViT for 32-pixel images and 5 classes, trained for three steps."""
    import torch  # slow, and the tests of reporting do not need it
    from vtab_peft.benchmark.checkpoints.adapter_checkpoint import AdapterCheckpoint
    from vtab_peft.benchmark.checkpoints.restore import TrainedModel
    from vtab_peft.benchmark.engine import backbone as backbones
    from vtab_peft.benchmark.method_checks.tiny_models import NO_DROP_PATH, train_few_steps
    from vtab_peft.methods import parse

    def make(spec: str, weights: str = "random", **facts: Any) -> TrainedModel:
        backbone, method = backbones.load("toy_vit", weights, 32), parse(spec)
        injected, _ = train_few_steps(backbone.vit, method)
        torch.manual_seed(3)
        head = torch.nn.Linear(backbone.vit.num_features, 5)
        named = fake_spec(method=spec.partition("(")[0], spec=spec, backbone=backbone.ref, **facts)
        run = replace(named, recipe=replace(NO_DROP_PATH, image_size=32, precision="fp32"))
        return TrainedModel(Path("none"), AdapterCheckpoint(run, injected.adapter(), head), None, backbone, injected)

    return make


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use no worker process and no network, and change to a temporary folder."""

    from in_process import LOCAL_BACKEND, ResolverBackend  # here, as most tests need no worker
    from vtab_peft.benchmark.execution.pool import WorkerPool
    from vtab_peft.benchmark.execution.scheduler import SweepResult

    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(LOCAL_BACKEND, ResolverBackend)
    monkeypatch.setattr(WorkerPool, "execute", lambda *_: SweepResult())
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    monkeypatch.chdir(tmp_path)
