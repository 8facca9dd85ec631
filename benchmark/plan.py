"""The plan: which cells a command means.  Plain data, no torch; the worker tells what names and weights mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from ..datasets.cache import CachedTask, Preprocessing
from .spec import BackboneRef, MethodRef, Recipe, RunSpec, TaskRef

NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]] | None] = {
    "own": None,  # the backbone's own
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""What published code feeds a ViT, by name; see docs/design.md."""


@dataclass(frozen=True)
class BackboneInfo:
    """A backbone as the worker found it."""

    ref: BackboneRef
    weights: str | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    notes: tuple[str, ...]
    seconds_per_image: float
    """Of one forward pass in the recipe's precision on the worker's device, as measured."""
    device: str


@dataclass(frozen=True)
class MethodInfo:
    """A method as the worker parsed it."""

    ref: MethodRef
    title: str
    lr: float | None
    frozen_features: bool
    trainable_params: int
    """Closed form, for this backbone, without head."""


@dataclass(frozen=True)
class Cell:
    """One unit of work, with all a worker needs to do it."""

    spec: RunSpec
    data: CachedTask
    weights: str | None
    method: MethodInfo
    seconds: float
    """Estimate from the measured forward pass: training costs three forwards an image, evaluation one."""
    keep_adapter: bool = False
    """Whether the trained adapter and head are stored beside the record."""

    def __str__(self) -> str:
        return f"{self.spec.task.name} · {self.spec.method.spec} · seed {self.spec.seed}"


@dataclass(frozen=True)
class Choice:
    """What the user chose, beyond backbone, methods and tasks."""

    recipe: Recipe
    seeds: Sequence[int]
    split: Literal["val", "test"] = "test"
    normalisation: str = "own"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def preprocessing(self, backbone: BackboneInfo) -> Preprocessing:
        return Preprocessing(backbone.image_size, self.interpolation)


def make_plan(
    backbone: BackboneInfo, methods: Sequence[MethodInfo], tasks: Sequence[CachedTask], choice: Choice
) -> list[Cell]:
    """All cells, one seed after the other, so that a table of one seed is complete early."""
    mean, std = NORMALISATIONS[choice.normalisation] or (backbone.mean, backbone.std)
    cells = []
    for seed, method, data in product(choice.seeds, methods, tasks):
        task = data.task
        spec = RunSpec(
            backbone=backbone.ref,
            task=TaskRef(
                suite=task.suite,
                name=task.name,
                version=task.version,
                data=data.data,
                provenance=data.provenance,
            ),
            method=method.ref,
            recipe=resolve(choice.recipe, method, backbone),
            recipe_base=choice.recipe.base,
            split=choice.split,
            seed=seed,
            mean=mean,
            std=std,
            interpolation=choice.interpolation,
        )
        cells.append(Cell(spec, data, backbone.weights, method, _estimate(spec, method, data, backbone)))
    return cells


def resolve(recipe: Recipe, method: MethodInfo, backbone: BackboneInfo) -> Recipe:
    """The recipe with nothing left open: the method's learning rate, probe epochs, and the image size filled in."""
    if method.frozen_features and recipe.augmentation == "none":
        recipe = recipe.for_probe()
    return replace(recipe, lr=method.lr or recipe.lr, image_size=backbone.image_size)


def _estimate(spec: RunSpec, method: MethodInfo, data: CachedTask, backbone: BackboneInfo) -> float:
    train = data.counts["train"] + (data.counts["val"] if spec.split == "test" else 0)
    cached = method.frozen_features and spec.recipe.augmentation == "none"
    passes = train if cached else 3 * train * spec.recipe.epochs
    return (passes + data.counts[spec.split]) * backbone.seconds_per_image
