"""The command `tune`: search settings on val per method and task, refit with the best, test once."""

import argparse
import math
from collections.abc import Iterable, Sequence
from itertools import chain, product, zip_longest

from ...datasets.cache import CachedTask
from ...datasets.few_shots import FewShotTask
from ...datasets.task import Task
from ...datasets.tasks import find
from ..execution.pool import WorkerPool
from ..execution.scheduler import SweepResult
from ..execution.signals import Terminated
from ..plan import BackboneInfo, MethodInfo, PlannedRun, SweepConfig
from ..recipes import choose_recipe
from ..reporting.text_table import text_table
from ..reporting.wording import pluralize
from ..spec import Recipe
from ..storage.store import Store
from .messages import about, estimate_of, one_worker, say, say_outcome, say_resumable, unread_note
from .pool_options import open_pool
from .report import write_report
from .run import (
    cached_tasks,
    check_task_folders,
    deadline_in,
    draws,
    missing_runs,
    read_cache,
    resolve_names,
    sweep,
)
from .tuning_grid import Grid, check_grid, parse_grid
from .tuning_space import Search, Setting, Trials, budget, tuned


def tune(options: argparse.Namespace) -> int:
    """Run `vtab-peft tune`: missing trials, then the choice, then missing refits, then the report.

    Return 1 if a run failed or all trials of a pair did, but not for runs left to other commands or for lack of time.
    """
    deadline = deadline_in(options.max_minutes)  # first, because the limit of a job includes the start of the worker
    tasks = find(options.tasks, options.suite, options.data)
    check_task_folders(tasks)
    grid, recipe = parse_grid(options.grid), choose_recipe(options.recipe, options.settings)
    store, pool = Store(options.results), open_pool(options)
    try:
        backbone, methods = resolve_names(options, pool, recipe, True, grid and grid.arguments)
        search = _search(options, recipe, backbone, methods, grid)
        if options.dry_run:
            return _dry_run(search, tasks, methods, store)
        ready = search.config.drawn(cached_tasks(tasks, search.config.preprocessing(backbone)))
        trials = [search.trials(method, data) for method, data in product(methods, ready)]
        results = [_run_trials(options, trials, pool, store, deadline)]
        refits = _choose(search, trials, results[0], store)
        results.append(_run_refits(options, refits, pool, store, deadline))
    except (KeyboardInterrupt, Terminated):
        say_resumable(store)
        raise
    finally:
        pool.stop()
    for result in results:
        say_outcome(result, store)
    if len(refits) < len(trials):
        say(f"no setting is chosen yet for {len(trials) - len(refits)} of {len(trials)} pairs of method and task")
    if any(refits):
        write_report(options.results, runs=list(chain(*refits)))
    broken = [run for result in results for run, _ in result.failed if not store.diverged(run.spec)]
    return 1 if broken or not all(refits) else 0


def _search(
    options: argparse.Namespace,
    recipe: Recipe,
    backbone: BackboneInfo,
    methods: Sequence[MethodInfo],
    grid: Grid | None,
) -> Search:
    """Raise `ValueError` if the recipe cannot be tuned, the grid is ambiguous or the budget is too large."""
    if grid is not None:
        check_grid(grid, methods)
    configurations = budget(options.max_configs, recipe, methods, grid)
    config = SweepConfig(
        recipe=tuned(recipe, configurations, grid),
        seeds=list(dict.fromkeys(options.seeds)),
        normalisation=options.normalisation,
        interpolation=options.interpolation,
        keep_adapters=options.keep_adapters,
        draws=draws(options),
    )
    return Search(backbone, recipe, configurations, config, grid)


def _run_trials(
    options: argparse.Namespace, trials: Sequence[Trials], pool: WorkerPool, store: Store, deadline: float | None
) -> SweepResult:
    """Run the trials that are pending; methods of which one is a variant of another share trials."""
    pending = list({run.spec.run_id(): run for own in trials for run in own.pending(store)}.values())
    total = len({run.spec.run_id() for own in trials for run in own.runs})
    say(f"{pluralize(len(pending), 'trial')} of {total} to do{about(pending, one_worker(options))}")
    return sweep(pending, pool, store, deadline, options.grace)


def _choose(search: Search, trials: Sequence[Trials], result: SweepResult, store: Store) -> list[list[PlannedRun]]:
    """Write the choices, and return the refits of each pair of method and task whose trials are complete.

    A pair whose trials all failed has no refits.
    """
    failed = [run.spec.run_id() for run, _ in result.failed]
    refits: list[list[PlannedRun]] = []
    known: list[tuple[Trials, list[float | None]]] = []
    for own in trials:
        if (accuracies := own.accuracies(store, failed)) is not None:
            search.write_choice(own, accuracies, store)
            refits.append(search.refits(own, accuracies))
            known.append((own, accuracies))
    if any(refits):
        print(f"{choices_table(known)}\n", flush=True)
    for own in (own for (own, _), planned in zip(known, refits, strict=True) if not planned):
        tried = f"all {len(own.runs)} trials of {own.method.ref.spec} on {_task_of(own)} failed or diverged"
        say(f"{tried}, so it has no setting and no test result; give --grid other values, such as lower rates")
    pairs = pluralize(sum(map(bool, refits)), "pair")
    say(f"settings chosen for {pairs} of method and task, see {store.root / 'chosen'}")
    return refits


def choices_table(known: Sequence[tuple[Trials, list[float | None]]]) -> str:
    """Return a table of what was chosen, the second best, and how many others are within a standard error of val200."""
    rows = []
    for trials, accuracies in known:
        pairs = zip(trials.settings, accuracies, strict=True)
        ranked = sorted(((own, value) for own, value in pairs if value is not None), key=lambda pair: -pair[1])
        if not ranked:
            continue
        best = ranked[0][1]
        error = math.sqrt(best * (1 - best) / trials.data.counts["val"])
        near = sum(best - value <= error for _, value in ranked[1:])
        shown = [text for own, value in ranked[:2] for text in (_in_words(own, trials), f"{100 * value:.1f}")]
        shown += [""] * (4 - len(shown))
        rows.append((trials.method.ref.spec, _task_of(trials), *shown, f"{near} of {len(ranked) - 1}"))
    header = ("method", "task", "chosen", "on val", "second", "on val", "within 1 s.e.")
    return text_table(header, rows, "lllrlrr")


def _task_of(trials: Trials) -> str:
    """Return the name of the task, with the draw of few shots."""
    return trials.data.task.label if isinstance(trials.data, FewShotTask) else trials.data.task.name


def _in_words(setting: Setting, trials: Trials) -> str:
    """Return a setting as text, with the method if its arguments were tried."""
    own = setting.method.ref.spec
    return str(setting) if own == trials.method.ref.spec else f"{own} {setting}"


def _run_refits(
    options: argparse.Namespace,
    refits: Sequence[list[PlannedRun]],
    pool: WorkerPool,
    store: Store,
    deadline: float | None,
) -> SweepResult:
    """Run the refits that are missing."""
    missing = missing_runs(store, _by_seed(refits))
    say(f"{pluralize(len(missing), 'refit')} of {sum(map(len, refits))} to do{about(missing, one_worker(options))}")
    return sweep(missing, pool, store, deadline, options.grace)


def _by_seed(refits: Iterable[list[PlannedRun]]) -> list[PlannedRun]:
    """Order the refits by seed, so that a leaderboard of one seed is complete early."""
    return [run for run in chain(*zip_longest(*refits)) if run is not None]


def _dry_run(search: Search, tasks: Sequence[Task], methods: Sequence[MethodInfo], store: Store) -> int:
    """Print the plan; change no file."""
    found, unread = read_cache(tasks, search.config.preprocessing(search.backbone))
    found = search.config.drawn(found)
    rows, runs = zip(*(_plan_row(search, method, found, store) for method in methods), strict=True)
    seeds = " ".join(map(str, search.config.seeds))
    print(
        f"{search.backbone.ref.name}, recipe {search.config.recipe.name}: "
        f"{pluralize(search.configurations, 'setting')} per method and task on val, "
        f"then seeds {seeds} on test; {pluralize(len(tasks), 'task')}, on {search.backbone.device}\n"
    )
    header = ("method", "grid", "trials done", "to do", "chosen", "refits done", "to do", "estimate")
    print(text_table(header, rows, "l" + "r" * 7))
    print(f"\nin all: {estimate_of([*chain(*runs)])} with one worker\n\n{rates_table(search, methods)}")
    if unread:
        print(f"\n{unread_note(unread)}")
    return 0


def rates_table(search: Search, methods: Sequence[MethodInfo], style: str = "simple") -> str:
    """Return a table of the learning rates that each method tries with its default arguments."""
    header = ("method", "learning rates at the default arguments", "trials there", "with other arguments")
    rows = [search.rates_at_default(method) for method in methods]
    return text_table(header, rows, "llrr", style)


def _plan_row(
    search: Search, method: MethodInfo, tasks: Sequence[CachedTask], store: Store
) -> tuple[tuple[object, ...], list[PlannedRun]]:
    """Return a row of the plan, and its runs; refits of an open choice are estimated with the default setting."""
    trials = [search.trials(method, data) for data in tasks]
    known = [own.accuracies(store) for own in trials]
    unknown = [own for own, accuracies in zip(trials, known, strict=True) if accuracies is None]
    pending = [run for own in unknown for run in own.pending(store)]
    default = [0.0] + [None] * (search.configurations - 1)
    refits = [run for own, found in zip(trials, known, strict=True) for run in search.refits(own, found or default)]
    missing = missing_runs(store, refits)
    row = (
        method.ref.spec,
        search.grid(method),
        sum(len(own.runs) for own in trials) - len(pending),
        len(pending),
        f"{sum(accuracies is not None for accuracies in known)} of {len(tasks)}",
        len(refits) - len(missing),
        len(missing),
        estimate_of([*pending, *missing]),
    )
    return row, [*pending, *missing]
