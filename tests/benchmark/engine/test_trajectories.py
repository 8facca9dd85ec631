"""Train beside the authors' own training code: the loss of every step agrees with theirs.

tests/golden/trajectories holds one JSON file per method: the losses that the authors' model, parameter groups,
optimiser and scheduler gave on real weights and images, with our initial values and without dropout.  Here the engine's
own loop trains again, with its shortcuts (`make_fast`).  Tolerance: 1e-5 in float32; 1e-10 in float64, where SGD at
high rates amplifies rounding.  Weights and images lie in ../shared/data; without it the tests are skipped.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from vtab_peft.benchmark.engine import trainer
from vtab_peft.benchmark.engine.backbone import Backbone, load
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.engine.live_model import LiveModel
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.engine.optim import learning_rate
from vtab_peft.benchmark.engine.random_streams import Stream, derive_seed
from vtab_peft.benchmark.engine.trainer import make_head
from vtab_peft.benchmark.engine.transforms import Normalize
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import MethodRef, RunSpec, TaskRef
from vtab_peft.methods import Method, parse

CASES = Path(__file__).parents[2] / "golden" / "trajectories"
DATA = Path(__file__).parents[4] / "shared" / "data"
VIT_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
WEIGHTS = DATA / "weights" / f"{VIT_TINY}.fp16.safetensors"
MEAN_STD = {"half": ((0.5,) * 3,) * 2, "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WEIGHTS.exists(), reason="no ../shared/data beside the checkout"),
]


@dataclass
class Pixels:
    """The images of a case in place of a cached task."""

    array: np.ndarray
    answers: np.ndarray
    classes: int

    def training_splits(self, split: str) -> tuple[str, ...]:
        return ("train",)

    def images(self, split: str) -> np.ndarray:
        return self.array

    def labels(self, split: str) -> np.ndarray:
        return self.answers


def record_losses(method: type[Method], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list that receives the loss of every step of `method`."""
    losses: list[float] = []
    compute = method.loss

    def loss(*args: Any) -> Tensor:
        found = compute(*args)
        losses.append(float(found.detach()))
        return found

    monkeypatch.setattr(method, "loss", loss)
    return losses


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load(VIT_TINY, str(WEIGHTS))


def pixels_of(case: dict[str, Any]) -> Pixels:
    """Read the case's images as its authors do: decoded by Pillow, stretched to 224 x 224, bicubic."""
    folder = DATA / "tasks" / "caltech101"
    lines = (folder / "train800val200.txt").read_text().splitlines()
    chosen = np.random.default_rng(0).permutation(1000)[: int(case["images"].partition(":")[0])]
    paths, labels = zip(*(lines[i].rsplit(" ", 1) for i in chosen), strict=True)
    images = (Image.open(folder / path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC) for path in paths)
    classes = 1 + max(int(line.rsplit(" ", 1)[1]) for line in lines)
    return Pixels(np.stack([np.asarray(i).transpose(2, 0, 1) for i in images]), np.array(labels, np.int64), classes)


def spec_of(case: dict[str, Any], backbone: Backbone) -> RunSpec:
    recipe = replace(RECIPES[case["recipe"]].for_task("caltech101"), **case["recipe_changes"])
    method = parse(case["method"])
    mean, std = MEAN_STD[case["input"].rpartition(" ")[2]]
    return RunSpec(
        backbone=backbone.ref,
        task=TaskRef(suite="vtab1k", name="caltech101", version=1, data="0" * 16, provenance="jpeg75"),
        method=MethodRef(name="x", args={}, version=1, plugin=None, spec=method.spec()),
        recipe=replace(recipe, image_size=224),
        recipe_base=recipe.base,
        split="val",
        seed=0,
        mean=mean,
        std=std,
        interpolation="bicubic",
    )


def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the trainer compute in float64: its model, its head and its features."""

    def injected(*args: Any) -> Any:
        fresh = inject(*args)
        fresh.vit.double()
        return fresh

    def features(live: LiveModel, images: Tensor) -> Tensor:
        assert live._spec is not None
        return live.vit(Normalize(live._spec.mean, live._spec.std)(images).double())

    monkeypatch.setattr(trainer, "inject", injected)
    monkeypatch.setattr(trainer, "make_head", lambda *args: make_head(*args).double())
    monkeypatch.setattr(LiveModel, "features", features)


def rates(spec: RunSpec, steps: int) -> list[float]:
    """Return the learning rate of each step."""
    per_epoch = steps // spec.recipe.epochs
    epochs = [divmod(step, per_epoch) for step in range(steps)]
    per_step = spec.recipe.schedule_per == "step"
    return [learning_rate(spec.recipe, epoch + per_step * step / per_epoch) for epoch, step in epochs]


@pytest.mark.parametrize("path", sorted(CASES.glob("*.json")), ids=lambda path: path.stem)
def test_losses_equal_the_authors(path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    case = json.loads(path.read_text())
    double = case["precision"].startswith("float64")
    method = parse(case["method"])
    losses, spec = record_losses(type(method), monkeypatch), spec_of(case, backbone)
    seeds = {Stream.PERMUTATIONS: 2}  # the seed that the authors' side used
    monkeypatch.setattr(trainer, "derive_seed", lambda seed, stream: seeds.get(stream, derive_seed(seed, stream)))
    if double:
        in_float64(monkeypatch)
    live = LiveModel(torch.device("cpu"), Numerics(2))
    trainer.train(spec, method, backbone, pixels_of(case), live)
    tolerance = case.get("lr_tolerance", 1e-6)
    np.testing.assert_allclose(rates(spec, len(losses)), case["lr_authors"], rtol=tolerance)
    np.testing.assert_allclose(losses, case["losses_authors"], rtol=0, atol=1e-10 if double else 1e-5)
