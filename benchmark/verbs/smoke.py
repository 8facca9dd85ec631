"""The verb `smoke`: a small benchmark that needs no internet, no weights and no data, and can gate regressions."""

import argparse
import tempfile
from pathlib import Path

from ...datasets.tasks import find
from ..planning.plan import Choice, make_plan
from ..planning.recipes import RECIPES
from ..running.executor import WorkerProcess
from ..running.worker import Describe
from ..storing.store import Store
from ..training.numerics import Numerics
from .gate import compare, diff_table, write_baseline
from .sweep import cached_tasks, sweep, write_report

METHODS = ("linear", "bitfit", "lora", "adaptformer", "aoft_lora")
SEEDS = (0, 1)
CAVEAT = "This gates regressions and ranks nothing: few epochs, few images, procedural tasks, a toy backbone."


def smoke(options: argparse.Namespace) -> int:
    """Run it afresh in a temporary results folder, print its table, and hold it against a baseline if asked.

    Exit status: 1 when a cell failed or a value regressed.
    """
    results = Path(tempfile.mkdtemp(prefix="vtab-peft-smoke-"))
    choice = Choice(recipe=RECIPES["smoke"], seeds=SEEDS)
    worker = WorkerProcess(results, Numerics(options.threads), options.plugin)
    try:
        request = Describe("toy_vit", None, None, choice.recipe.precision, METHODS, all_plugged=True)
        backbone, methods = worker.describe(request)
        tasks = cached_tasks(find(["all"], "toy", None), choice.preprocessing(backbone))
        tally = sweep(make_plan(backbone, methods, tasks, choice), worker, Store(results))
    except KeyboardInterrupt:
        return 130
    finally:
        worker.stop()
    status = write_report(results)
    print(CAVEAT)
    runs = Store(results).frame([])
    if options.write_baseline:
        write_baseline(options.write_baseline, runs, min(data.counts["test"] for data in tasks))
        print(f"baseline written to {options.write_baseline}")
    if options.baseline:
        verdicts = compare(options.baseline, runs)
        print(diff_table(verdicts))
        status = status or int(any(verdict.regressed for verdict in verdicts))
    return status or int(bool(tally.failed))
