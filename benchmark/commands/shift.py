"""The command `shift`: evaluate saved models on corrupted test images and on further test lists.

Nothing is chosen on these tests.  The alpha of WiSE-FT is chosen on val, by a model that never trained on val, before
any test image of the task is opened.
"""

import argparse
import copy
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from torch import nn
from tqdm import tqdm

from ...datasets.cache import CachedTask, Preprocessing
from ...datasets.few_shots import drawn_for, split_suite
from ...datasets.reading import InvalidFile
from ...datasets.shifted import ShiftedTest, scratch_folder, shifted_tests
from ...datasets.task import Task
from ...datasets.tasks import find
from ...methods.anatomy import VisionModel
from ..checkpoints.restore import TrainedModel, load_trained
from ..checkpoints.wise_ft import ALPHAS, best_alpha, interpolated
from ..engine.device import choose_device, use_device, use_threads
from ..engine.evaluate import predict
from ..engine.timing import provenance
from ..plan import preprocessing_of
from ..reporting.compare import same_spec
from ..reporting.wording import pluralize
from ..storage.json_io import StoreError, require_writable
from ..storage.layout import Provenance
from ..storage.schema import Run
from ..storage.shifts import SCHEMA, Outcome, Shift, WiseFt, accuracies, load_shift, path_of, save_shift
from ..storage.store import Store
from .messages import load_latest, say
from .report import write_report
from .run import cached_tasks, check_task_folders


def shift(options: argparse.Namespace) -> int:
    """Run `vtab-peft shift`: evaluate what is not stored yet, store it, and rebuild the report.

    Return 1 if `--wise-ft` was possible for none of the models.

    Raises:
        ValueError: no stored test run of the tasks has its adapter, or none of the models can be restored.
        DataError: a further list is wrong.
    """
    store = Store(options.results)
    store.require_results_folder()
    tasks = find(options.tasks, options.suite, options.data)
    check_task_folders(tasks)
    groups = saved_models(store, tasks, options.methods)
    if not groups:
        raise ValueError("no stored test run of these tasks has its adapter; train with `run --save-adapters`")
    require_writable(store.root / "shift")
    use_device(device := choose_device(options.device))
    use_threads(options.threads)
    evaluator = Evaluator(store, device, options)
    for task, preprocessing, suite, runs in groups:
        evaluator.evaluate(drawn_for(suite, *cached_tasks([task], preprocessing)), runs)
    if not evaluator.new + evaluator.stored:
        raise ValueError("none of the models could be evaluated; the lines above say why")
    say(f"{pluralize(evaluator.new, 'model')} evaluated on shifted tests, {evaluator.stored} stored already")
    status = write_report(store.root, runs=[run for *_, runs in groups for run in runs])
    if options.wise_ft and not evaluator.with_wise_ft:
        say("no model has WiSE-FT; the lines above say why")
        return 1
    return status


def saved_models(
    store: Store, tasks: Sequence[Task], methods: Sequence[str]
) -> list[tuple[Task, Preprocessing, str, list[Run]]]:
    """Return the test runs with adapters, by task, preprocessing and suite (that of the task or of a draw of it).

    methods: names, titles or specs, in which spaces mean nothing; empty: all.

    Raises:
        ValueError: no saved model has one of these names.
    """
    wanted = {(task.suite, task.name): task for task in tasks}
    found: dict[tuple[str, str, Preprocessing], list[Run]] = defaultdict(list)
    known: set[str] = set()
    for run in store.load_runs()[0]:
        suite, name = run.spec.task.suite, run.spec.task.name
        saved = run.spec.split == "test" and run.path.with_suffix(".safetensors").exists()
        if saved and (split_suite(suite)[0], name) in wanted:
            names = {run.method_spec, run.spec.method.spec, run.spec.method.name, run.title}
            known |= names
            if not methods or any(same_spec(method, name) for method in methods for name in names):
                found[suite, name, preprocessing_of(run.spec)].append(run)
    for method in methods if known else ():
        if not any(same_spec(method, name) for name in known):
            raise ValueError(
                f"no saved model of these tasks is called {method!r}; there are {', '.join(sorted(known))}"
            )
    return [
        (wanted[split_suite(suite)[0], name], preprocessing, suite, runs)
        for (suite, name, preprocessing), runs in found.items()
    ]


class NotRestored(ValueError):
    """The trained model of a run cannot be loaded: its file, weights, plug-in or version of the method."""


@dataclass
class Evaluator:
    """Evaluates saved models and stores the outcomes."""

    store: Store
    device: torch.device
    options: argparse.Namespace
    new: int = 0
    """Models with new outcomes."""
    stored: int = 0
    """Models whose outcomes were stored already."""
    with_wise_ft: int = 0
    """Models that have WiSE-FT, stored or new."""
    bar: "tqdm[Any]" = field(init=False)
    """Tests that are done, on a terminal."""

    def evaluate(self, data: CachedTask, runs: Sequence[Run]) -> None:
        """Evaluate the models of a task that lack a test."""
        same = [run for run in runs if run.spec.task.data == data.data]
        for run in runs:
            if run not in same:
                say(f"left out: {run.run_id} was trained on other images or labels than {data.task.label} has now")
        known = {run.run_id: self.load_record(run) for run in same}
        if self.options.wise_ft:
            known |= self.choose_alphas(data, [run for run in same if not has_wise_ft(known[run.run_id])], known)
        self.with_wise_ft += sum(map(has_wise_ft, known.values()))
        tests = shifted_tests(data) if same else []  # opened once every alpha is stored
        left = [evaluations_left(known[run.run_id], tests) for run in same]
        models = pluralize(sum(count > 0 for count in left), "model")
        with scratch_folder() as folder, self.progress(data, sum(left), f"of {models}"):
            for run in same:
                before = known[run.run_id]
                try:
                    record = self.complete(run, data, before, tests, folder)
                except NotRestored as error:
                    say(f"left out: {name_of(run)}: {error}")
                    continue
                changed = record != before
                self.new, self.stored = self.new + changed, self.stored + (not changed)
                if changed:
                    save_shift(self.store.root, record)
                    say(f"{data.task.label} · {name_of(run)}: {summary(record)}")

    def progress(self, data: CachedTask, total: int, purpose: str) -> "tqdm[Any]":
        """Return the bar of a task's evaluations; where there is no terminal, say how many there are."""
        is_shown = sys.stderr.isatty()
        if total and not is_shown:
            say(f"{data.task.label}: {pluralize(total, 'evaluation')} {purpose}")
        self.bar = tqdm(
            desc=f"{data.task.name} {purpose}", total=total, unit=" evaluations", leave=False, disable=not is_shown
        )
        return self.bar

    def choose_alphas(
        self, data: CachedTask, runs: Sequence[Run], known: Mapping[str, Shift | None]
    ) -> dict[str, Shift]:
        """Return run ID -> record with the alpha of WiSE-FT, chosen on val and stored, of the runs that can have it."""
        choosers: list[tuple[Run, Run]] = []
        found: dict[str, Shift] = {}
        for run in runs:
            try:
                choosers.append((run, self.chooser(run, data)))
            except ValueError as error:
                say(f"no WiSE-FT for {name_of(run)}: {error}")
        models = pluralize(len(choosers), "model")
        with self.progress(data, len(choosers) * len(ALPHAS), f"on val, to choose alpha of {models}"):
            for run, chooser in choosers:
                try:
                    model = self.load(chooser, data)
                    val = self.accuracies_on_val(model, data)
                except ValueError as error:
                    say(f"no WiSE-FT for {name_of(run)}: {error}")
                    continue
                before = known[run.run_id]
                wise = WiseFt(best_alpha(val), chooser.run_id, val, [])
                found[run.run_id] = self.record(run, before.tests if before else [], wise, model)
                save_shift(self.store.root, found[run.run_id])
        return found

    def accuracies_on_val(self, model: TrainedModel, data: CachedTask) -> list[tuple[float, float]]:
        """Return each alpha with its accuracy on val; raise `ValueError` if the method cannot be merged."""
        labels, val = data.labels("val"), []
        for alpha, vit in zip(ALPHAS, interpolated(model, ALPHAS), strict=True):
            live = model.live_on(self.device, vit)
            head = copy.deepcopy(model.checkpoint.head).to(self.device)
            val.append((alpha, float((predict(live, head, data.images("val")) == labels).mean())))
            self.bar.update()
        return val

    def chooser(self, run: Run, data: CachedTask) -> Run:
        """Return the run that never trained on val and chooses alpha for `run`; raise `ValueError` if there is none."""
        if not run.trainable_params:
            raise ValueError("it does not change the backbone")
        if "val" not in data.training_splits("test"):
            return run
        twin = load_latest(self.store, replace(run.spec, split="val"))
        if twin is None or not twin.path.with_suffix(".safetensors").exists():
            raise ValueError("it needs the same `run` with --split val")
        return twin

    def complete(
        self, run: Run, data: CachedTask, before: Shift | None, tests: Sequence[ShiftedTest], folder: Path
    ) -> Shift:
        """Return the record with every test, the stored one if nothing is missing.

        Raises:
            NotRestored: the model is not available here.
        """
        if before and not evaluations_left(before, tests):
            return before
        known, wise = (before.tests, before.wise_ft) if before else ([], None)
        model = self.load(run, data)
        found = [*known, *self.outcomes(model, model.injected.vit, lacking(tests, known), folder)]
        if wise:
            more: list[Outcome] = []
            if missing := lacking(tests, wise.tests):
                more = self.outcomes(model, next(interpolated(model, [wise.alpha])), missing, folder)
            wise = msgspec.structs.replace(wise, tests=of(tests, [*wise.tests, *more]))
        return self.record(run, of(tests, found), wise, model)

    def record(self, run: Run, tests: list[Outcome], wise: WiseFt | None, model: TrainedModel) -> Shift:
        """Return the record of a run, made here and now."""
        origin = cast(Provenance, provenance(self.device, sys.argv, model.numerics))
        return Shift(SCHEMA, run.run_id, run.predictions_sha256, tests, origin, wise)

    def outcomes(
        self, model: TrainedModel, vit: VisionModel, tests: Sequence[ShiftedTest], folder: Path
    ) -> list[Outcome]:
        """Evaluate a model, once per test."""
        live, found = model.live_on(self.device, vit), []
        for test in tests:
            labels = test.labels()
            head = only_classes(model.checkpoint.head, labels) if test.restricted else model.checkpoint.head
            predictions = predict(live, copy.deepcopy(head).to(self.device), test.array(folder))
            found.append(Outcome(test.name, test.severity, test.data, len(labels), int((predictions == labels).sum())))
            self.bar.update()
        return found

    def load(self, run: Run, data: CachedTask) -> TrainedModel:
        adapter, options = str(run.path.with_suffix(".safetensors")), self.options
        try:
            return load_trained(adapter, self.store.root, options.weights, options.plugin, options.backbone, data)
        except (ValueError, InvalidFile, StoreError) as error:
            raise NotRestored(str(error)) from None

    def load_record(self, run: Run) -> Shift | None:
        """Return the stored record of this model; None if there is none, or one of an earlier repetition."""
        try:
            record = load_shift(path) if (path := path_of(self.store.root, run.run_id)).exists() else None
        except InvalidFile as error:
            say(f"{error}; it is written again")
            return None
        return record if record and record.predictions_sha256 == run.predictions_sha256 else None


def lacking(tests: Sequence[ShiftedTest], known: Sequence[Outcome]) -> list[ShiftedTest]:
    """Return the tests without an outcome, or with one of other images."""
    done = {(outcome.name, outcome.severity, outcome.data) for outcome in known}
    return [test for test in tests if (test.name, test.severity, test.data) not in done]


def evaluations_left(record: Shift | None, tests: Sequence[ShiftedTest]) -> int:
    """Return the number of evaluations that a model lacks."""
    wise = record.wise_ft if record else None
    return len(lacking(tests, record.tests if record else [])) + (len(lacking(tests, wise.tests)) if wise else 0)


def has_wise_ft(record: Shift | None) -> bool:
    """Return whether the alpha of WiSE-FT is chosen."""
    return record is not None and record.wise_ft is not None


def name_of(run: Run) -> str:
    """Return what tells a run from the others of its task, for messages."""
    return f"{run.method_spec} · seed {run.spec.seed}, run {run.run_id}"


def of(tests: Sequence[ShiftedTest], found: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes of the tests, in their order."""
    by_test = {(outcome.name, outcome.severity, outcome.data): outcome for outcome in found}
    return [by_test[test.name, test.severity, test.data] for test in tests]


def only_classes(head: nn.Linear, labels: Any) -> nn.Linear:
    """Return the head with only the classes of a list left to choose, as ImageNet-A and -R are evaluated."""
    other = copy.deepcopy(head)
    absent = torch.ones(head.out_features, dtype=torch.bool)
    absent[torch.from_numpy(labels)] = False
    with torch.no_grad():
        other.bias[absent] = -torch.inf
    return other


def summary(record: Shift) -> str:
    """Return the accuracies of a record in one line."""
    texts = []
    for name, tests in (("", record.tests), ("WiSE-FT ", record.wise_ft.tests if record.wise_ft else [])):
        if tests:
            found = accuracies(tests)
            texts.append(f"{name}clean {100 * found['clean']:.1f} %, corrupted {100 * found['corrupted']:.1f} %")
    return "; ".join(texts)
