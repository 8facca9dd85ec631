"""The verb `smoke`: a small benchmark that needs no internet, no weights and no data, and can gate regressions."""

import argparse
import shutil
import tempfile
from pathlib import Path

from ...datasets.tasks import find
from ..engine.numerics import Numerics
from ..execution.worker import ResolveRequest
from ..execution.worker_process import WorkerProcess
from ..plan import SweepConfig, make_plan
from ..recipes import RECIPES
from ..reporting.report import write
from ..storage.store import Store
from .messages import announcement, say
from .regression_gate import Baseline, check_writable, compare, diff_table, read_baseline, write_baseline
from .run import cached_tasks, sweep

METHODS = ("linear", "bitfit", "lora", "adaptformer", "aoft_lora")
SEEDS = (0, 1)
CAVEAT = "This gates regressions and ranks nothing: few epochs, few images, procedural tasks, a toy backbone."


def smoke(options: argparse.Namespace) -> int:
    """Run it afresh in a temporary results folder, print its table, and hold it against a baseline if asked.

    The folder is removed at the end, whatever that is; where cells failed it stays, for their tracebacks.

    Exit status: 1 when a cell failed or a value regressed.

    Raises:
        BaselineError: a baseline that cannot be read or written, before anything is run; or one of other conditions.
    """
    baseline = read_baseline(options.baseline) if options.baseline else None
    if options.write_baseline:
        check_writable(options.write_baseline)
    results = Path(tempfile.mkdtemp(prefix="vtab-peft-smoke-"))
    try:
        return _smoke(options, baseline, Store(results))
    finally:
        if any((results / "failed").glob("*.json")):
            say(f"the tracebacks of what failed are in {results / 'failed'}; delete {results} when you have read them")
        else:
            shutil.rmtree(results, ignore_errors=True)


def _smoke(options: argparse.Namespace, baseline: Baseline | None, store: Store) -> int:
    choice = SweepConfig(recipe=RECIPES["smoke"], seeds=SEEDS)
    worker = WorkerProcess(store.root, Numerics(options.threads), options.plugin)
    try:
        request = ResolveRequest("toy_vit", None, None, choice.recipe.precision, METHODS, all_plugged=True)
        backbone, methods = worker.describe(request)
        tasks = cached_tasks(find(["all"], "toy", None), choice.preprocessing(backbone))
        cells = make_plan(backbone, methods, tasks, choice)
        say(announcement(cells, cells, backbone, choice.recipe, "eager"))
        tally = sweep(cells, worker, store)
    finally:
        worker.stop()
    report = write(store, store.root)
    print(report.text)
    print(CAVEAT)
    status = int(bool(tally.failed) or not report.boards)
    runs = store.frame([])
    if options.write_baseline:
        write_baseline(options.write_baseline, runs, min(data.counts["test"] for data in tasks))
        print(f"baseline written to {options.write_baseline}")
    if baseline:
        verdicts = compare(baseline, runs)
        print(diff_table(verdicts))
        status = status or int(any(verdict.regressed for verdict in verdicts))
    return status
