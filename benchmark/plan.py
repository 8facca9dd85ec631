"""Expand a command's options into the list of planned runs.  Plain data without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import heappop, heappush
from itertools import product
from typing import Any, Literal

from ..datasets.cache import CachedTask, Preprocessing
from ..datasets.few_shots import Draw, few_shot, split_suite
from ..datasets.task import DataError
from .escaping import one_line
from .spec import BackboneRef, MethodRef, Recipe, RunSpec, TaskRef

NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]] | None] = {
    "own": None,  # the values of the backbone
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and std by name, as used by published code; see docs/data.md."""


@dataclass(frozen=True)
class BackboneInfo:
    """A backbone as resolved by the worker."""

    ref: BackboneRef
    weights: str | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    notes: tuple[str, ...]
    seconds_per_image: float
    """Measured time of a forward pass in the recipe's precision on the worker's device."""
    device: str
    on_gpu: bool = False
    plugged: bool = False
    """True if a plug-in file defines the model."""


@dataclass(frozen=True)
class MethodInfo:
    """A method as resolved by the worker."""

    ref: MethodRef
    title: str
    lr: float | None
    frozen_features: bool
    trainable_params: int
    """Closed-form number of trainable parameters for this backbone, without head."""
    variants: tuple["MethodInfo", ...] = ()
    """`Method.variants`, the method itself first, if requested."""
    arguments: tuple[str, ...] = ()
    """Names of all arguments; `ref` lacks those added `later` that have their default."""


@dataclass(frozen=True)
class PlannedRun:
    """A run to execute, with everything a worker needs."""

    spec: RunSpec
    data: CachedTask
    weights: str | None
    method: MethodInfo
    seconds: float
    """Estimated time: three measured forward passes per training image, one per evaluated image."""
    oracle: bool = False
    """Also record the best epoch on the evaluated split; this does not change the result."""
    label: str = ""
    """Short text that distinguishes runs of the same task, method and seed in messages."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Additional facts for the record; they do not change the result."""
    keep_adapter: bool = False
    """Store the trained adapter and head beside the record."""
    keep_logits: bool = False
    """Store the logits with the predictions."""
    plugged_backbone: bool = False
    """True if the worker needs the plug-in files for the backbone."""

    def __str__(self) -> str:
        _, draw = split_suite(self.spec.task.suite)
        parts = (self.spec.task.name, draw and str(draw), self.spec.method.spec, self.label, f"seed {self.spec.seed}")
        return one_line(" · ".join(part for part in parts if part))


@dataclass(frozen=True)
class SweepConfig:
    """The user's choices beyond backbone, methods and tasks."""

    recipe: Recipe
    seeds: Sequence[int]
    split: Literal["val", "test"] = "test"
    normalisation: str = "own"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    oracle: bool = False
    keep_adapters: bool = False
    keep_logits: bool = False
    draws: Sequence[Draw] = ()
    """Few-shot draws of each task; empty: the whole tasks."""

    @cached_property
    def recipe_base(self) -> str:
        """`Recipe.base` of the chosen recipe."""
        return self.recipe.base

    def preprocessing(self, backbone: BackboneInfo) -> Preprocessing:
        """Return the preprocessing of images for a backbone."""
        return Preprocessing(backbone.image_size, self.interpolation, self.recipe.framing)

    def drawn(self, tasks: Sequence[CachedTask]) -> list[CachedTask]:
        """Return the few-shot draws of decoded tasks, or the tasks themselves if none are wanted.

        Raises:
            DataError: classes have too few images; the message names all tasks with the first number of shots refused.
        """
        if not self.draws:
            return list(tasks)
        found: list[CachedTask] = []
        problems: dict[str, str] = {}
        for draw, data in product(self.draws, tasks):
            try:
                found.append(few_shot(data, draw))
            except DataError as error:
                problems.setdefault(data.task.label, str(error))
        if problems:
            raise DataError("\n".join(problems.values()))
        return found


def preprocessing_of(spec: RunSpec) -> Preprocessing:
    """Return the preprocessing of a run's images, the same as `SweepConfig.preprocessing` of its sweep."""
    assert spec.recipe.image_size is not None, "the recipe of a run states the image size"
    return Preprocessing(spec.recipe.image_size, spec.interpolation, spec.recipe.framing)  # pyright: ignore[reportArgumentType]


def make_plan(
    backbone: BackboneInfo, methods: Sequence[MethodInfo], tasks: Sequence[CachedTask], config: SweepConfig
) -> list[PlannedRun]:
    """Return all runs, ordered by seed, so that a table of one seed is complete early."""
    first = [
        plan_run(backbone, method, data, resolve(config.recipe.for_task(data.task.name), method, backbone), config, 0)
        for method, data in product(methods, config.drawn(tasks))
    ]
    return [replace(run, spec=run.spec.with_seed(seed)) for seed, run in product(config.seeds, first)]


def shard(runs: Sequence[PlannedRun], part: tuple[int, int], backbone: BackboneInfo) -> list[PlannedRun]:
    """Return part i of n of the runs, balanced by cost, in the plan's order.

    The longest run is assigned first, each to the part with the least cost so far.  The cost is counted in images
    over the whole plan, so that all machines agree, whatever is stored already.
    """
    index, parts = part
    if parts == 1:
        return list(runs)
    costs = [round(run.seconds / backbone.seconds_per_image) for run in runs]
    loads = [(0, number) for number in range(1, min(parts, len(runs)) + 1)]  # later parts stay empty
    assigned = []
    for place in sorted(range(len(runs)), key=lambda place: (-costs[place], place)):
        load, number = heappop(loads)
        heappush(loads, (load + costs[place], number))
        if number == index:
            assigned.append(place)
    return [runs[place] for place in sorted(assigned)]


def plan_run(
    backbone: BackboneInfo, method: MethodInfo, data: CachedTask, recipe: Recipe, config: SweepConfig, seed: int
) -> PlannedRun:
    """Plan one run.

    Args:
        recipe: The recipe as returned by `resolve`, with any tuned values filled in.
    """
    mean, std = NORMALISATIONS[config.normalisation] or (backbone.mean, backbone.std)
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
        recipe_base=config.recipe_base,
        split=config.split,
        seed=seed,
        mean=mean,
        std=std,
        interpolation=config.interpolation,
    )
    seconds = estimate(spec, method, data, backbone, config.oracle)
    return PlannedRun(
        spec,
        data,
        backbone.weights,
        method,
        seconds,
        config.oracle,
        keep_adapter=config.keep_adapters,
        keep_logits=config.keep_logits,
        plugged_backbone=backbone.plugged,
    )


def resolve(recipe: Recipe, method: MethodInfo, backbone: BackboneInfo) -> Recipe:
    """Return a task's recipe with the method's learning rate, probe epochs and the image size filled in."""
    if method.frozen_features and recipe.augmentation == "none":
        recipe = recipe.for_probe()
    return replace(recipe, lr=recipe.rate_for(method.lr), image_size=backbone.image_size)


def estimate(spec: RunSpec, method: MethodInfo, data: CachedTask, backbone: BackboneInfo, oracle: bool) -> float:
    """Return the estimated time of a run in seconds."""
    train = sum(data.counts[split] for split in data.training_splits(spec.split))
    cached = method.frozen_features and spec.recipe.augmentation == "none"
    passes = train if cached else 3 * train * spec.recipe.epochs
    evaluations = 1 + (spec.recipe.epochs if oracle else 0)
    return (passes + evaluations * data.counts[spec.split]) * backbone.seconds_per_image
