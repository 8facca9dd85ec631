"""What `tune` tries for each (method, task), and what wins.  Plain data, no torch.

A setting is a point of the method's `search` grid times a learning rate and a weight decay.  Every method gets the
same number of settings: its default first, then a sample of its grid in an order that is random and the same
everywhere.  The trials are ordinary cells of split "val", which see train800 and val200 and nothing else; the refits
are ordinary cells of split "test" under a recipe of their own, so that they stand on a board of their own.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from ...datasets.cache import CachedTask
from ..plan import BackboneInfo, MethodInfo, PlannedRun, SweepConfig, make_cell, resolve
from ..spec import Recipe, fingerprint
from ..storage.json_io import to_text, write_atomically
from ..storage.store import Store

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Ours: times the method's own learning rate, so that methods whose rate is known to be another start from theirs.
Around 1e-3 they reach from 1e-4 to 1e-2, as AOFT's and OSU's do (recipe_tables/aoft_released.csv; recipe `osu`)."""
WEIGHT_DECAYS = (1e-4, 1e-2, 1e-1)
"""Ours: hardly any, as `uniform`; what pulls weights by a percent over a run at 1e-3; ten times that.  SSF's two lie
around the first and near the last, AOFT's from one end to beyond the other."""
SEED = 0
"""Of every trial (ours: one seed, since a choice among many settings gains more from more settings)."""


@dataclass(frozen=True)
class Setting:
    """One thing to try."""

    method: MethodInfo
    lr: float
    weight_decay: float


def settings(method: MethodInfo, recipe: Recipe) -> list[Setting]:
    """The full grid of a method with its variants: the default first, then by the hash of the place in the grid.

    The places of learning rates and decays are the same for all methods, so methods without a grid of their own try the
    same ones in the same order, and a smaller budget tries the first of what a larger one tries.
    """
    own = method.lr or recipe.lr
    rates = recipe.search.get("lr") or [float(f"{own * factor:.6g}") for factor in FACTORS]
    decays = recipe.search.get("weight_decay") or WEIGHT_DECAYS
    default = Setting(method.variants[0], recipe.lr if "lr" in recipe.search else own, recipe.weight_decay)
    rest = {}
    for variant, (place, lr), decay in product(method.variants, enumerate(rates), decays):
        changed = {name: value for name, value in variant.ref.args.items() if value != method.ref.args[name]}
        setting = Setting(variant, lr, decay)
        if setting != default:
            rest[fingerprint([changed, place, decay])] = setting
    return [default, *(rest[order] for order in sorted(rest))]


def fair_budget(recipe: Recipe) -> int:
    """The settings of a method without a grid of its own: what every method can be given."""
    return len(recipe.search.get("lr") or FACTORS) * len(recipe.search.get("weight_decay") or WEIGHT_DECAYS)


def budget(asked: int | None, recipe: Recipe, methods: Sequence[MethodInfo]) -> int:
    """How many settings every method gets.

    Raises:
        ValueError: a method has fewer than that.
    """
    number = asked or fair_budget(recipe)
    for method in methods:
        if (own := len(settings(method, recipe))) < number:
            raise ValueError(
                f"{method.ref.spec} has {own} settings to try, so {number} would not be the same for every method; "
                f"say --max-configs {own} or less"
            )
    return number


def tuned(recipe: Recipe, configurations: int) -> Recipe:
    """What refits are filed under; its hash covers the recipe, the grid and the budget.

    Raises:
        ValueError: the recipe has numbers per task already.
    """
    if recipe.tasks:
        raise ValueError(f"recipe {recipe.name!r} has settings per task already; tune one that is the same for all")
    grid = recipe.search or {"lr_factor": FACTORS, "weight_decay": WEIGHT_DECAYS}
    return replace(
        recipe,
        name=f"{recipe.name}_tuned{configurations}",
        source=f"`{recipe.name}`, with {configurations} settings per method and task tried on val200",
        tuned=True,
        search=grid,
    )


@dataclass(frozen=True)
class Trials:
    """The settings of one (method, task) and the validation cells that try them."""

    method: MethodInfo
    data: CachedTask
    settings: list[Setting]
    cells: list[PlannedRun]

    def pending(self, store: Store, complaints: list[str]) -> list[PlannedRun]:
        """Not run yet, or failed; a trial that diverged is an outcome and is not repeated.

        complaints: gets the records that were damaged; they are set aside, and their trials are pending.
        """
        return [
            cell for cell in self.cells if store.get(cell.spec, complaints) is None and not store.diverged(cell.spec)
        ]

    def accuracies(
        self, store: Store, complaints: list[str], failed: Collection[str] = ()
    ) -> list[float | None] | None:
        """On val200, None for a trial that diverged or failed; None for all while one of them is still to be run.

        complaints: as for `pending`.
        failed: keys of trials that failed just now, and are not waited for.
        """
        found: list[float | None] = []
        for cell in self.cells:
            record = store.get(cell.spec, complaints)
            if record is None and cell.spec.run_id() not in failed and not store.diverged(cell.spec):
                return None
            found.append(None if record is None else record["result"]["accuracy"])
        return found


def choose(accuracies: Sequence[float | None]) -> int | None:
    """The place of the best; of equals the first, so that nothing but a better one beats the default.

    None when every one failed.
    """
    tried = [(-accuracy, place) for place, accuracy in enumerate(accuracies) if accuracy is not None]
    return min(tried)[1] if tried else None


@dataclass(frozen=True)
class Search:
    """Everything a `tune` command means, before anything is run."""

    backbone: BackboneInfo
    recipe: Recipe
    configurations: int
    choice: SweepConfig
    """Of the refits; its recipe is `tuned` of the other."""

    def grid(self, method: MethodInfo) -> int:
        """Size of a method's full grid."""
        return len(settings(method, self.recipe))

    def trials(self, method: MethodInfo, data: CachedTask) -> Trials:
        choice = replace(self.choice, recipe=self.recipe, split="val", keep_adapters=False)
        tried = settings(method, self.recipe)[: self.configurations]
        cells = [
            replace(self._cell(setting, data, choice, SEED), label=f"lr {setting.lr:g} wd {setting.weight_decay:g}")
            for setting in tried
        ]
        return Trials(method, data, tried, cells)

    def refits(self, trials: Trials, accuracies: Sequence[float | None]) -> list[PlannedRun]:
        """The test cells of what won; none when every trial failed."""
        place = choose(accuracies)
        if place is None:
            return []
        setting = trials.settings[place]
        won = replace(setting.method, ref=replace(setting.method.ref, asked=trials.method.ref.spec))
        facts = {
            "val_key": trials.cells[place].spec.run_id(),
            "val_accuracy": accuracies[place],
            "configurations": self.configurations,
            "grid": self.grid(trials.method),
        }
        return [
            replace(self._cell(replace(setting, method=won), trials.data, self.choice, seed), facts={"tuning": facts})
            for seed in self.choice.seeds
        ]

    def _cell(self, setting: Setting, data: CachedTask, choice: SweepConfig, seed: int) -> PlannedRun:
        resolved = resolve(choice.recipe.for_task(data.task.name), setting.method, self.backbone)
        recipe = replace(resolved, lr=setting.lr, weight_decay=setting.weight_decay)
        return make_cell(self.backbone, setting.method, data, recipe, choice, seed)

    def write_choice(self, trials: Trials, accuracies: Sequence[float | None], store: Store) -> Path:
        """`results/chosen/...json`: what was tried, in order, and what won; the same trials give the same bytes."""
        tried = [
            {
                "spec": setting.method.ref.spec,
                "lr": setting.lr,
                "weight_decay": setting.weight_decay,
                "val_key": cell.spec.run_id(),
                "val_accuracy": accuracy,
            }
            for setting, cell, accuracy in zip(trials.settings, trials.cells, accuracies, strict=True)
        ]
        place = choose(accuracies)
        record: dict[str, Any] = {
            "method": trials.method.ref.spec,
            "task": trials.data.task.label,
            "recipe": self.choice.recipe.base,
            "chosen": None if place is None else tried[place],
            "tried": tried,
            "grid": self.grid(trials.method),
            "rule": "highest accuracy on val200 after the last epoch; of equals the first tried; null: failed",
        }
        recipe = self.choice.recipe
        name = f"{recipe.name}-{fingerprint([recipe.base, [row['val_key'] for row in tried]], 8)}.json"
        path = store.chosen(trials.cells[0].spec) / name
        write_atomically(path, to_text(record).encode())
        return path
