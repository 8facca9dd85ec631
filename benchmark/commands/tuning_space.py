"""The search space of `tune`, the order in which settings are tried, and the choice.  Plain data, no torch.

A setting is a point of the method's `search` grid, a learning rate and a weight decay.  Every method gets the same
number of settings.  First come all learning rates at the method's default arguments, so that every method has the same
chance at its learning rate.  A sample of the grid in a fixed pseudo-random order follows.  Trials are ordinary runs of
split "val", which use train800 and val200 only.  Refits are ordinary runs of split "test" with a recipe of another
name, so that they have their own leaderboard.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import log10
from pathlib import Path
from typing import Any

from ...datasets.cache import CachedTask
from ..canonical import fingerprint
from ..plan import BackboneInfo, MethodInfo, PlannedRun, SweepConfig, plan_run, resolve
from ..recipes import text_of, with_schedule
from ..spec import Recipe
from ..storage.json_io import to_text, write_atomically
from ..storage.store import Store
from .messages import load_latest
from .tuning_grid import Grid

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Multiples of the method's default learning rate (ours).
For 1e-3 they span 1e-4 to 1e-2, as the grids of AOFT and OSU do (recipe_tables/aoft_released.csv; recipe `osu`)."""
WEIGHT_DECAYS = (1e-4, 1e-2, 1e-1)
"""Weight decays (ours): nearly none, as in `uniform`; 1 % shrinkage over a run at lr 1e-3; ten times that.
SSF uses 5e-5 and 5e-2, AOFT 5e-5 to 0.5."""
ORDER = 2
"""Version of the order in which settings are tried; refits after another order have another leaderboard.
Version 1 drew all settings after the first at random, so a method with a larger grid tried fewer learning rates."""
SEED = 0
"""Seed of every trial (ours: more settings help the choice more than more seeds)."""


@dataclass(frozen=True)
class Setting:
    """Hyper-parameters of one trial."""

    method: MethodInfo
    lr: float
    weight_decay: float
    others: tuple[tuple[str, Any], ...] = ()
    """Other fields of the recipe, and their values."""

    def __str__(self) -> str:
        others = [f"{name} {text_of(value)}" for name, value in self.others]
        return " ".join([f"lr {self.lr:g} wd {self.weight_decay:g}", *others])


def settings(method: MethodInfo, recipe: Recipe, grid: Grid | None = None) -> list[Setting]:
    """Return the full grid of a method in the order in which settings are tried.

    The default comes first; in a grid of the user, the point that is closest to it.  The other learning rates with the
    same arguments and weight decay follow, the closest to the default first.  The rest is ordered by the hash of the
    grid position.  Positions of learning rates and decays are the same for all methods, so methods without a `search`
    grid try the same ones in the same order.  A smaller budget is a prefix of a larger one.
    """
    own = recipe.lr if "lr" in recipe.search else recipe.rate_for(method.lr)
    if grid is None:
        rates: Sequence[float] = recipe.search.get("lr") or [float(f"{own * factor:.6g}") for factor in FACTORS]
        decays, free = recipe.search.get("weight_decay") or WEIGHT_DECAYS, {}
        default = Setting(method.variants[0], own, recipe.weight_decay)
    else:
        free = {"lr": (own,), "weight_decay": (recipe.weight_decay,), **grid.fields}
        rates, decays = free.pop("lr"), free.pop("weight_decay")
        lr = min(rates, key=lambda lr: abs(log10(lr / own)))
        first_others = tuple((name, _closest(values, getattr(recipe, name))) for name, values in free.items())
        default = Setting(method.variants[0], lr, _closest(decays, recipe.weight_decay), first_others)
    others = [tuple(zip(free, values, strict=True)) for values in product(*free.values())]
    by_distance = sorted(rates, key=lambda lr: round(abs(log10(lr / default.lr)), 3))
    first = [default, *(replace(default, lr=lr) for lr in by_distance if lr != default.lr)]
    rest = {}
    for variant, (position, lr), decay, other in product(method.variants, enumerate(rates), decays, others):
        changed = {
            name: value for name, value in variant.ref.args.items() if (name, value) not in method.ref.args.items()
        }
        setting = Setting(variant, lr, decay, other)
        if setting not in first:
            rest[fingerprint([changed, position, decay, *other])] = setting
    return [*first, *(rest[order] for order in sorted(rest))]


def _closest(values: Sequence[Any], own: Any) -> Any:
    """Return the recipe's own value if it is among the values, else the first."""
    return own if own in values else values[0]


def fair_budget(recipe: Recipe) -> int:
    """Return the number of settings of a method without a `search` grid, which every method has."""
    return len(recipe.search.get("lr") or FACTORS) * len(recipe.search.get("weight_decay") or WEIGHT_DECAYS)


def budget(asked: int | None, recipe: Recipe, methods: Sequence[MethodInfo], grid: Grid | None = None) -> int:
    """Return the number of settings that every method gets: by default all of a user's grid.

    Raises:
        ValueError: a method has fewer.
    """
    number = asked or (len(settings(methods[0], recipe, grid)) if grid else fair_budget(recipe))
    for method in methods:
        if (own := len(settings(method, recipe, grid))) < number:
            raise ValueError(
                f"{method.ref.spec} has only {own} settings, so not every method can try {number}; "
                f"use --max-configs {own} or less"
            )
    return number


def tuned(recipe: Recipe, configurations: int, grid: Grid | None = None) -> Recipe:
    """Return the recipe of refits; its hash covers the base recipe, the grid, its order and the budget.

    Raises:
        ValueError: the recipe has settings per task already.
    """
    if recipe.tasks:
        raise ValueError(f"recipe {recipe.name!r} has settings per task already; give `tune` a recipe that has none")
    search = recipe.search or {"lr_factor": FACTORS, "weight_decay": WEIGHT_DECAYS}
    if grid is not None:
        search = {**grid.fields, **grid.arguments}
    return replace(
        recipe,
        name=f"{recipe.name}_tuned{configurations}" + (f"({grid})" if grid else ""),
        source=f"`{recipe.name}`, with {configurations} settings per method and task tried on val200",
        tuned=True,
        search={**search, "order": (ORDER,)},
    )


@dataclass(frozen=True)
class Trials:
    """The validation runs that try settings for one (method, task)."""

    method: MethodInfo
    data: CachedTask
    settings: list[Setting]
    runs: list[PlannedRun]
    """One run per setting."""

    def pending(self, store: Store) -> list[PlannedRun]:
        """Return the trials that have no result yet; a diverged trial has lost and is not repeated."""
        return [run for run in self.runs if not load_latest(store, run.spec) and not store.diverged(run.spec)]

    def accuracies(self, store: Store, failed: Collection[str] = ()) -> list[float | None] | None:
        """Return the accuracies on val200, None for failed trials; return None while a trial is pending.

        failed: run IDs of trials that failed in this command; they are not pending.
        """
        found: list[float | None] = []
        for run in self.runs:
            stored = load_latest(store, run.spec)
            if stored is None and run.spec.run_id() not in failed and not store.diverged(run.spec):
                return None
            found.append(None if stored is None else stored.accuracy)
        return found


def choose(accuracies: Sequence[float | None]) -> int | None:
    """Return the index of the highest accuracy, the first one on ties; None if every trial failed."""
    tried = [index for index, accuracy in enumerate(accuracies) if accuracy is not None]
    return max(tried, key=lambda index: accuracies[index] or 0.0) if tried else None


@dataclass(frozen=True)
class Search:
    """The plan of a `tune` command."""

    backbone: BackboneInfo
    recipe: Recipe
    configurations: int
    config: SweepConfig
    """Configuration of the refits; its recipe is `tuned(self.recipe, ...)`."""
    values: Grid | None = None
    """The user's grid."""

    def grid(self, method: MethodInfo) -> int:
        """Return the size of a method's full grid."""
        return len(settings(method, self.recipe, self.values))

    def tried(self, method: MethodInfo) -> list[Setting]:
        """Return the settings that a method tries, in order."""
        return settings(method, self.recipe, self.values)[: self.configurations]

    def rates_at_default(self, method: MethodInfo) -> tuple[str, str, int, int]:
        """Return a table row: the method, the learning rates tried with its default arguments, and numbers of trials.

        The numbers are those of trials with the default arguments and with other arguments.
        """
        tried = self.tried(method)
        plain = [setting.lr for setting in tried if setting.method == method.variants[0]]
        rates = " ".join(f"{lr:g}" for lr in sorted(set(plain)))
        return method.ref.spec, rates, len(plain), len(tried) - len(plain)

    def trials(self, method: MethodInfo, data: CachedTask) -> Trials:
        """Return the trials of a method on a task."""
        config = replace(self.config, recipe=self.recipe, split="val", keep_adapters=False)
        tried = self.tried(method)
        runs = [replace(self._plan(setting, data, config, SEED), label=str(setting)) for setting in tried]
        return Trials(method, data, tried, runs)

    def refits(self, trials: Trials, accuracies: Sequence[float | None]) -> list[PlannedRun]:
        """Return the test runs of the best setting; empty if every trial failed."""
        best = choose(accuracies)
        if best is None:
            return []
        trial = trials.runs[best]
        method = replace(trial.method, ref=replace(trial.spec.method, asked=trials.method.ref.spec))
        setting = replace(trials.settings[best], method=method)
        facts = {
            "val_key": trial.spec.run_id(),
            "val_accuracy": accuracies[best],
            "configurations": self.configurations,
            "grid": self.grid(trials.method),
        }
        return [
            replace(self._plan(setting, trials.data, self.config, seed), facts={"tuning": facts})
            for seed in self.config.seeds
        ]

    def _plan(self, setting: Setting, data: CachedTask, config: SweepConfig, seed: int) -> PlannedRun:
        own = config.recipe.for_task(data.task.name)
        resolved = resolve(
            replace(own, **with_schedule(dict(setting.others), asdict(own))), setting.method, self.backbone
        )
        recipe = replace(resolved, lr=setting.lr, weight_decay=setting.weight_decay)
        return plan_run(self.backbone, setting.method, data, recipe, config, seed)

    def write_choice(self, trials: Trials, accuracies: Sequence[float | None], store: Store) -> Path:
        """Write what was tried and what won to `results/chosen/...json`; equal trials give equal bytes."""
        tried = [
            {
                "spec": run.spec.method.spec,
                "lr": run.spec.recipe.lr,
                "weight_decay": run.spec.recipe.weight_decay,
                **dict(setting.others),
                "val_key": run.spec.run_id(),
                "val_accuracy": accuracy,
            }
            for run, setting, accuracy in zip(trials.runs, trials.settings, accuracies, strict=True)
        ]
        best, recipe = choose(accuracies), self.config.recipe
        record = {
            "method": trials.method.ref.spec,
            "task": trials.data.task.label,
            "recipe": recipe.base,
            "chosen": None if best is None else tried[best],
            "tried": tried,
            "grid": self.grid(trials.method),
            "rule": "highest accuracy on val200 after the last epoch; of equals the first tried; null: failed",
        }
        readable = re.sub(r"[^\w.+-]", "_", recipe.name)[:64]
        name = f"{readable}-{fingerprint([recipe.base, [row['val_key'] for row in tried]], 8)}.json"
        path = store.chosen(trials.runs[0].spec) / name
        write_atomically(path, to_text(record).encode())
        return path
