"""The command `smoke`: a small benchmark that needs no internet, weights or data, and can detect regressions."""

import argparse
import math
import shutil
import tempfile
from pathlib import Path

from ...datasets.tasks import find
from ..engine.numerics import Numerics
from ..execution.local_pool import local_pool
from ..execution.messages import ResolveRequest, WorkerConfig
from ..plan import SweepConfig, make_plan
from ..recipes import choose_recipe
from ..reporting.report import write
from ..reporting.wording import pluralize
from ..storage.json_io import check_writable
from ..storage.store import Store
from .messages import announcement, say
from .regression_gate import Baseline, check_conditions, compare, diff_table, read_baseline, write_baseline
from .run import cached_tasks, missing_runs, sweep

METHODS = ("linear", "bitfit", "lora", "adaptformer", "aoft_lora")
SEEDS = (0, 1)
CAVEAT = "This detects regressions; it does not rank methods (few epochs and images, procedural tasks, a toy backbone)."


def smoke(options: argparse.Namespace) -> int:
    """Run `vtab-peft smoke`; return 1 if a run failed or a value regressed.

    A gate executes its runs even if they are stored, because it tests the code.  Without `--results`, the folder is a
    temporary one and removed at the end, unless it holds tracebacks.

    Raises:
        BaselineError: the baseline cannot be read, or does not apply.
        ValueError: the baseline cannot be written (checked before anything runs).
    """
    baseline = read_baseline(options.baseline) if options.baseline else None
    if options.write_baseline:
        check_writable(options.write_baseline)
    if options.results:
        status = _smoke(options, baseline, Store(options.results))
        print(f"runs, tables and figures: {options.results}, page: {options.results / 'index.html'}")
        return status
    results = Path(tempfile.mkdtemp(prefix="vtab-peft-smoke-"))
    try:
        return _smoke(options, baseline, Store(results))
    finally:
        if any((results / "failed").glob("*.json")):
            say(f"tracebacks of failed runs: {results / 'failed'}; delete {results} after reading them")
        else:
            shutil.rmtree(results, ignore_errors=True)


def _smoke(options: argparse.Namespace, baseline: Baseline | None, store: Store) -> int:
    config = SweepConfig(recipe=choose_recipe("smoke", options.settings), seeds=SEEDS)
    pool = local_pool(WorkerConfig(store.root, Numerics(options.threads), options.plugin, device=options.device))
    try:
        request = ResolveRequest(
            "toy_vit", None, config.recipe.image_size, config.recipe.precision, METHODS, all_plugged=True
        )
        backbone, methods = pool.resolve(request)
        tasks = cached_tasks(find(["all"], "toy", None), config.preprocessing(backbone))
        runs = make_plan(backbone, methods, tasks, config)
        if baseline:
            check_conditions(baseline, [run.spec for run in runs])
        missing = missing_runs(store, runs)
        first = {run.spec.run_id(): store.next_repetition(run.spec) for run in runs}
        todo = runs if baseline or options.write_baseline else missing
        say(announcement(runs, todo, backbone, config.recipe, "eager"))
        result = sweep(todo, pool, store)
    finally:
        pool.stop()
    run_ids = {run.spec.run_id() for run in runs}
    report = write(store, store.root, run_ids=run_ids)
    print(report.text)
    print(CAVEAT)
    status = int(bool(result.failed) or not report.leaderboards)
    new = [run for run in store.load_runs()[0] if run.repetition >= first.get(run.run_id, math.inf)]
    if options.write_baseline:
        if len(new) < len(runs):
            say(f"no baseline is written: {len(runs) - len(new)} of {pluralize(len(runs), 'run')} have no result")
            return 1
        write_baseline(options.write_baseline, new, min(data.counts["test"] for data in tasks))
        print(f"baseline written to {options.write_baseline}")
    if baseline:
        verdicts = compare(baseline, [run.spec for run in runs], new)
        print(diff_table(verdicts))
        status = status or int(any(verdict.regressed for verdict in verdicts))
    return status
