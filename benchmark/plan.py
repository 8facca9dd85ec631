"""The plan: which cells a command means.  Plain data, no torch; the worker tells what names and weights mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import heappop, heappush
from itertools import product
from typing import Any, Literal

from ..datasets.cache import CachedTask, Preprocessing
from .spec import BackboneRef, MethodRef, Recipe, RunSpec, TaskRef

NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]] | None] = {
    "own": None,  # the backbone's own
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""What published code feeds a ViT, by name; see docs/data.md."""


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
    on_gpu: bool = False


@dataclass(frozen=True)
class MethodInfo:
    """A method as the worker parsed it."""

    ref: MethodRef
    title: str
    lr: float | None
    frozen_features: bool
    trainable_params: int
    """Closed form, for this backbone, without head."""
    variants: tuple["MethodInfo", ...] = ()
    """`Method.variants`, itself first, where they were asked for."""


@dataclass(frozen=True)
class PlannedRun:
    """One unit of work, with all a worker needs to do it."""

    spec: RunSpec
    data: CachedTask
    weights: str | None
    method: MethodInfo
    seconds: float
    """Estimate from the measured forward pass: training costs three forwards an image, evaluation one."""
    oracle: bool = False
    """Whether to record the best epoch on the evaluation split too; it cannot change the number."""
    label: str = ""
    """What tells it from others of the same task, method and seed, for people."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What its record says beside what the worker knows; it cannot change the number."""
    keep_adapter: bool = False
    """Whether the trained adapter and head are stored beside the record."""

    def __str__(self) -> str:
        parts = (self.spec.task.name, self.spec.method.spec, self.label, f"seed {self.spec.seed}")
        return " · ".join(part for part in parts if part)


@dataclass(frozen=True)
class SweepConfig:
    """What the user chose, beyond backbone, methods and tasks."""

    recipe: Recipe
    seeds: Sequence[int]
    split: Literal["val", "test"] = "test"
    normalisation: str = "own"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    oracle: bool = False
    keep_adapters: bool = False

    @cached_property
    def recipe_base(self) -> str:
        return self.recipe.base

    def preprocessing(self, backbone: BackboneInfo) -> Preprocessing:
        return Preprocessing(backbone.image_size, self.interpolation, self.recipe.framing)


def make_plan(
    backbone: BackboneInfo, methods: Sequence[MethodInfo], tasks: Sequence[CachedTask], choice: SweepConfig
) -> list[PlannedRun]:
    """All cells, one seed after the other, so that a table of one seed is complete early."""
    recipes = {
        (method.ref.spec, data.task.label): resolve(choice.recipe.for_task(data.task.name), method, backbone)
        for method, data in product(methods, tasks)
    }
    return [
        make_cell(backbone, method, data, recipes[method.ref.spec, data.task.label], choice, seed)
        for seed, method, data in product(choice.seeds, methods, tasks)
    ]


def shard(cells: Sequence[PlannedRun], part: tuple[int, int], backbone: BackboneInfo) -> list[PlannedRun]:
    """Part i of n, balanced by cost, in the plan's order.

    The longest cell goes first, each to the part that has least: as every part reckons over the whole plan, and in
    images instead of this machine's seconds, all agree without talking, whatever is stored already.
    """
    index, parts = part
    costs = [round(cell.seconds / backbone.seconds_per_image) for cell in cells]
    loads = [(0, number) for number in range(1, parts + 1)]
    mine = []
    for place in sorted(range(len(cells)), key=lambda place: (-costs[place], place)):
        load, number = heappop(loads)
        heappush(loads, (load + costs[place], number))
        if number == index:
            mine.append(place)
    return [cells[place] for place in sorted(mine)]


def make_cell(
    backbone: BackboneInfo, method: MethodInfo, data: CachedTask, recipe: Recipe, choice: SweepConfig, seed: int
) -> PlannedRun:
    """recipe: what `resolve` made of the choice's recipe, with whatever else is settled."""
    mean, std = NORMALISATIONS[choice.normalisation] or (backbone.mean, backbone.std)
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
        recipe=recipe,
        recipe_base=choice.recipe_base,
        split=choice.split,
        seed=seed,
        mean=mean,
        std=std,
        interpolation=choice.interpolation,
    )
    seconds = estimate(spec, method, data, backbone, choice.oracle)
    return PlannedRun(spec, data, backbone.weights, method, seconds, choice.oracle, keep_adapter=choice.keep_adapters)


def resolve(recipe: Recipe, method: MethodInfo, backbone: BackboneInfo) -> Recipe:
    """A task's recipe with nothing left open: the method's learning rate, probe epochs, and image size filled in.

    A tuned recipe keeps its learning rate: a method's own replaces one that was chosen for all alike.
    """
    if method.frozen_features and recipe.augmentation == "none":
        recipe = recipe.for_probe()
    lr = recipe.lr if recipe.tuned else method.lr or recipe.lr
    return replace(recipe, lr=lr, image_size=backbone.image_size)


def estimate(spec: RunSpec, method: MethodInfo, data: CachedTask, backbone: BackboneInfo, oracle: bool) -> float:
    train = data.counts["train"] + (data.counts["val"] if spec.split == "test" else 0)
    cached = method.frozen_features and spec.recipe.augmentation == "none"
    passes = train if cached else 3 * train * spec.recipe.epochs
    evaluations = 1 + (spec.recipe.epochs if oracle else 0)
    return (passes + evaluations * data.counts[spec.split]) * backbone.seconds_per_image
