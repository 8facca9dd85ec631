"""Trials of `tune`: what is stored decides, the winner is refitted, and test data stay closed."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vtab_peft.benchmark.commands.tune import choices_table
from vtab_peft.benchmark.commands.tuning_space import Search, tuned
from vtab_peft.benchmark.engine import trainer
from vtab_peft.benchmark.execution.worker import Worker
from vtab_peft.benchmark.plan import BackboneInfo, PlannedRun, SweepConfig
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.cache import CachedTask
from vtab_peft.methods import parse


def search_of(backbone: BackboneInfo, configurations: int = 4) -> Search:
    smoke = RECIPES["smoke"]
    return Search(backbone, smoke, configurations, SweepConfig(tuned(smoke, configurations), seeds=[0, 1, 2]))


def put(store: Store, run: PlannedRun, accuracy: float, fake: Any) -> None:
    store.save(run.spec, fake.record(accuracy), np.zeros(3, dtype=np.int64))


def test_table_of_choices_says_how_near_the_others_came(resolve, data: CachedTask) -> None:
    backbone, (linear,) = resolve("linear")
    trials = search_of(backbone).trials(linear, data)
    error = (0.6 * 0.4 / data.counts["val"]) ** 0.5
    table = choices_table([(trials, [0.6 - 1.1 * error, 0.6, None, 0.6 - 0.9 * error])])
    row = table.splitlines()[-1]
    assert str(trials.settings[1]) in row
    assert row.index(str(trials.settings[1])) < row.index(str(trials.settings[3]))
    assert row.endswith("1 of 2")


def test_choice_depends_on_trials_alone(resolve, data: CachedTask, store: Store, fake: Any) -> None:
    backbone, (lora,) = resolve("lora")
    search = search_of(backbone)
    trials = search.trials(lora, data)
    for run, accuracy in zip(trials.runs[:3], (0.4, 0.6, 0.5), strict=True):
        put(store, run, accuracy, fake)
    assert trials.pending(store) == trials.runs[3:]
    assert trials.accuracies(store) is None
    store.save_failure(trials.runs[3].spec, "Diverged: the training loss is nan", "")
    assert not trials.pending(store)
    accuracies = trials.accuracies(store)
    assert accuracies == [0.4, 0.6, 0.5, None]

    path = search.write_choice(trials, accuracies, store)
    written = path.read_bytes()
    for run in search.refits(trials, accuracies):
        put(store, run, 0.99, fake)
    path.unlink()
    again = trials.accuracies(store)
    assert again is not None
    assert search.write_choice(trials, again, store).read_bytes() == written
    choice = json.loads(written)
    assert choice["chosen"] == choice["tried"][1]
    assert [row["val_accuracy"] for row in choice["tried"]] == accuracies
    assert [row["val_key"] for row in choice["tried"]] == [run.spec.run_id() for run in trials.runs]


def test_failed_trial_is_repeated(resolve, data: CachedTask, store: Store, fake: Any) -> None:
    backbone, (linear,) = resolve("linear")
    trials = search_of(backbone).trials(linear, data)
    first = trials.runs[0].spec
    for run in trials.runs[1:]:
        put(store, run, 0.5, fake)
    store.save_failure(first, "the worker was killed by signal 9", "")
    assert trials.pending(store) == trials.runs[:1]
    assert trials.accuracies(store) is None
    assert trials.accuracies(store, failed=[first.run_id()]) == [None, 0.5, 0.5, 0.5]


def test_refit_has_the_best_setting_and_names_its_trial(resolve, data: CachedTask) -> None:
    backbone, (lora,) = resolve("lora")
    trials = search_of(backbone).trials(lora, data)
    refits = search_of(backbone).refits(trials, [0.4, 0.6, 0.5, None])
    assert [run.spec.seed for run in refits] == [0, 1, 2]
    won, first = trials.runs[1].spec, refits[0].spec
    assert (first.split, won.split) == ("test", "val")
    assert first.recipe == replace(won.recipe, name="smoke_tuned4", source=first.recipe.source, tuned=True)
    assert first.method == replace(won.method, asked="lora")
    for run in refits:
        assert run.facts["tuning"] == {
            "val_key": won.run_id(),
            "val_accuracy": 0.6,
            "configurations": 4,
            "grid": 45,
        }
    assert search_of(backbone).refits(trials, [None] * 4) == []


def test_smaller_budget_is_a_prefix(resolve, data: CachedTask) -> None:
    backbone, (lora,) = resolve("lora")
    few, many = (search_of(backbone, n).trials(lora, data).runs for n in (4, 15))
    assert [run.spec.run_id() for run in many[:4]] == [run.spec.run_id() for run in few]
    assert len({run.spec.run_id() for run in many}) == 15


class Guarded:
    """Cached task that fails the test when its test split is opened."""

    def __init__(self, data: CachedTask) -> None:
        self.data = data
        self.opened: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def open(self, kind: str, split: str) -> np.ndarray:
        self.opened.add(split)
        if split == "test":
            pytest.fail(f"a trial opened the {kind} of test")
        return getattr(self.data, kind)(split)

    def images(self, split: str) -> np.ndarray:
        return self.open("images", split)

    def labels(self, split: str) -> np.ndarray:
        return self.open("labels", split)


def test_trials_do_not_open_test_data(resolve, worker: Worker, data: CachedTask) -> None:
    info, methods = resolve("linear", "lora", "sct")  # sct uses examples before it trains
    backbone, guarded = worker.backbone("toy_vit", "random", None), Guarded(data)
    for method in methods:
        for run in search_of(info).trials(method, data).runs:
            arguments = (run.spec, parse(run.spec.method.spec), backbone, guarded, worker.live)
            trainer.train_and_evaluate(*arguments)  # type: ignore[arg-type]
    assert guarded.opened == {"train", "val"}
