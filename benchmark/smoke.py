"""The verb `smoke`: a small benchmark that needs no internet, no weights and no data."""

import sys
import tempfile
from pathlib import Path

from ..datasets.tasks import find
from .executor import WorkerProcess
from .plan import Choice, make_plan
from .recipes import RECIPES
from .store import Store
from .sweep import cached_tasks, report, sweep
from .worker import Describe

METHODS = ("linear", "bitfit", "lora", "adaptformer", "aoft_lora", "aoft_adapter")
SEEDS = (0, 1)


def smoke(threads: int) -> int:
    """Run it afresh in a temporary results folder and print its table."""
    results = Path(tempfile.mkdtemp(prefix="vtab-peft-smoke-"))
    choice = Choice(recipe=RECIPES["smoke"], seeds=SEEDS)
    worker = WorkerProcess(results, threads, [Path(sys.argv[0]).name, *sys.argv[1:]])
    try:
        backbone, methods = worker.describe(Describe("toy_vit", None, None, choice.recipe.precision, METHODS))
        tasks = cached_tasks(find(["all"], "toy", None), choice.preprocessing(backbone))
        tally = sweep(make_plan(backbone, methods, tasks, choice), worker, Store(results))
    except KeyboardInterrupt:
        return 130
    finally:
        worker.stop()
    status = report(results)
    print("This gates regressions and ranks nothing: few epochs, few images, procedural tasks, a toy backbone.")
    return status or (1 if tally.failed else 0)
