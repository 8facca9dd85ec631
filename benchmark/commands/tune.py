"""The verb `tune`: settings chosen on val200 for each (method, task), then refitted on the 1000 and tested once."""

import argparse
from collections.abc import Iterable, Sequence
from itertools import chain, product, zip_longest

from tabulate import tabulate

from ...datasets import cache
from ...datasets.cache import CachedTask
from ...datasets.task import Task
from ...datasets.tasks import find
from ..execution.scheduler import SweepResult
from ..execution.signals import Terminated
from ..execution.worker import ResolveRequest
from ..execution.worker_process import Executor
from ..plan import BackboneInfo, MethodInfo, PlannedRun, SweepConfig
from ..recipes import RECIPES
from ..reporting.wording import pluralize
from ..storage.store import Store
from .messages import UNREAD, about, estimate_of, one_worker, say, say_all, say_outcome
from .run import cached_tasks, check_task_folders, deadline_in, executor_for, missing_runs, sweep, write_report
from .tuning_space import Search, Trials, budget, tuned


def tune(options: argparse.Namespace) -> int:
    """`vtab-peft tune`: run what is missing of the trials, choose, run what is missing of the refits, report."""
    deadline = deadline_in(options.max_minutes)  # a job's limit counts what comes before the first cell too
    tasks = find(options.tasks, options.suite, options.data)
    if not options.dry_run:
        check_task_folders(tasks)
    recipe, store = RECIPES[options.recipe], Store(options.results)
    worker = executor_for(options)
    try:
        request = ResolveRequest(
            options.backbone, options.weights, recipe.image_size, recipe.precision, options.methods, variants=True
        )
        backbone, methods = worker.describe(request)
        for note in backbone.notes:
            say(note)
        search = _search(options, backbone, methods)
        if options.dry_run:
            return _dry_run(search, tasks, methods, store)
        ready = cached_tasks(tasks, search.choice.preprocessing(backbone))
        trials = [search.trials(method, data) for method, data in product(methods, ready)]
        tallies, refits = _run(search, trials, worker, store, deadline, options.grace, one_worker(options))
    except (KeyboardInterrupt, Terminated):
        say(f"every finished cell is kept in {options.results}/ and the same command goes on from there")
        raise
    finally:
        worker.stop()
    for tally in tallies:
        say_outcome(tally, store)
    pairs = sum(map(bool, refits))
    if pairs < len(trials):
        say(f"nothing is chosen yet for {len(trials) - pairs} of {len(trials)} pairs of method and task")
    if pairs:
        write_report(options.results, cells=list(chain(*refits)))
    broken = [cell for tally in tallies for cell, _ in tally.failed if not store.diverged(cell.spec)]
    return 1 if broken or pairs < len(trials) else 0


def _search(options: argparse.Namespace, backbone: BackboneInfo, methods: Sequence[MethodInfo]) -> Search:
    """Raises `ValueError` when the recipe or the budget does not fit."""
    recipe = RECIPES[options.recipe]
    number = budget(options.max_configs, recipe, methods)
    refit = tuned(recipe, number)
    choice = SweepConfig(
        recipe=refit,
        seeds=list(dict.fromkeys(options.seeds)),
        normalisation=options.normalisation,
        interpolation=options.interpolation,
        keep_adapters=options.keep_adapters,
    )
    return Search(backbone, recipe, number, choice)


def _run(
    search: Search,
    trials: Sequence[Trials],
    worker: Executor,
    store: Store,
    deadline: float | None,
    grace: float,
    alone: bool,
) -> tuple[list[SweepResult], list[list[PlannedRun]]]:
    """What became of the trials and of the refits, and the refits of each pair for which all trials are done.

    They are none where no trial gave a number to choose by.  alone: whether one worker runs them.
    """
    damaged: list[str] = []
    pending = [cell for own in trials for cell in own.pending(store, damaged)]
    say_all(damaged)
    say(f"{pluralize(len(pending), 'trial')} to run of {sum(len(own.cells) for own in trials)}{about(pending, alone)}")
    tallies = [sweep(pending, worker, store, deadline, grace)]
    failed = [cell.spec.run_id() for cell, _ in tallies[0].failed]
    refits, damaged = [], []
    for own in trials:
        if (accuracies := own.accuracies(store, damaged, failed)) is not None:
            search.write_choice(own, accuracies, store)
            refits.append(search.refits(own, accuracies))
    say_all(damaged)
    missing = missing_runs(store, _seed_by_seed(refits))
    say(f"chosen for {pluralize(sum(map(bool, refits)), 'pair')} of method and task, see {store.root / 'chosen'}")
    say(f"{pluralize(len(missing), 'refit')} to run of {sum(map(len, refits))}{about(missing, alone)}")
    return [*tallies, sweep(missing, worker, store, deadline, grace)], refits


def _seed_by_seed(refits: Iterable[list[PlannedRun]]) -> list[PlannedRun]:
    """So that a table of one seed is complete early."""
    return [cell for cell in chain(*zip_longest(*refits)) if cell is not None]


def _dry_run(search: Search, tasks: Sequence[Task], methods: Sequence[MethodInfo], store: Store) -> int:
    """Print the plan; nothing is run, built or written."""
    root, preprocessing = cache.default_root(), search.choice.preprocessing(search.backbone)
    found = {task.label: cache.cached(task, preprocessing, root) for task in tasks}
    ready = [data for data in found.values() if data is not None]
    unread = [label for label, data in found.items() if data is None]
    rows = [_plan_of(search, method, ready, unread, store) for method in methods]
    seeds = " ".join(str(seed) for seed in search.choice.seeds)
    print(
        f"{search.backbone.ref.name}, recipe {search.choice.recipe.name}: "
        f"{pluralize(search.configurations, 'configuration')} per method and task on val200, "
        f"then seeds {seeds} on test; {pluralize(len(tasks), 'task')}, on {search.backbone.device}\n"
    )
    header = ("method", "grid", "trials done", "to run", "chosen", "refits done", "to run", "estimate")
    print(tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=("left", *["right"] * 7)))
    if unread:
        cells = len(unread) * len(methods) * (search.configurations + len(search.choice.seeds))
        print(f"\n{cells} of these cells are {UNREAD}: {', '.join(unread)}")
    return 0


def _plan_of(
    search: Search, method: MethodInfo, ready: Sequence[CachedTask], unread: Sequence[str], store: Store
) -> tuple[object, ...]:
    """A line of the plan.  Refits of what is not chosen yet are estimated as those of the default."""
    trials = [search.trials(method, data) for data in ready]
    damaged: list[str] = []
    known = [own.accuracies(store, damaged) for own in trials]
    unknown = [own for own, accuracies in zip(trials, known, strict=True) if accuracies is None]
    pending = [cell for own in unknown for cell in own.pending(store, damaged)]
    say_all(damaged)
    default = [0.0] + [None] * (search.configurations - 1)
    refits = [
        cell
        for own, accuracies in zip(trials, known, strict=True)
        for cell in search.refits(own, accuracies or default)
    ]
    missing = missing_runs(store, refits)
    return (
        method.ref.spec,
        search.grid(method),
        sum(len(own.cells) for own in trials) - len(pending),
        len(pending) + len(unread) * search.configurations,
        f"{sum(accuracies is not None for accuracies in known)} of {len(ready) + len(unread)}",
        len(refits) - len(missing),
        len(missing) + len(unread) * len(search.choice.seeds),
        estimate_of([*pending, *missing], unread),
    )
