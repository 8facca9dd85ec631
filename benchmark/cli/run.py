"""The commands that train: `run`, `retry`, `rerun`, `tune`, `reproduce`, `smoke`, `speed`, `cost`."""

from ..engine.numerics import ENGINES
from .options import (
    EXECUTION,
    RECIPE,
    RUNS,
    STORED,
    Commands,
    add_device,
    add_plugin,
    add_results,
    add_runs,
    add_settings,
    add_split,
    add_sweep,
    add_threads,
    folder,
    group,
    path_of,
    positive,
    with_commas,
)


def declare(commands: Commands) -> None:
    """Add the commands of this module."""
    run = commands.add_parser("run", help="train and evaluate every (method, task, seed) that is not stored yet")
    add_runs(run)
    add_split(run)
    add_sweep(run)
    repeat = "repeat stored runs; earlier results stay"
    add = group(run, STORED).add_argument
    add("--repeat", "--again", dest="again", action="store_true", help=repeat)
    look = "print accuracies on N test images per task; stores and ranks nothing"
    add("--limit-test", type=positive, metavar="N", help=look)
    run.set_defaults(work="commands.quick_look:run", only_failed=False)

    retry = commands.add_parser("retry", help="like `run`, but only for runs that failed last time")
    add_runs(retry)
    add_split(retry)
    add_sweep(retry)
    retry.set_defaults(work="commands.run:run_missing", only_failed=True, again=False)

    rerun = commands.add_parser("rerun", help="repeat a stored run by its ID and check that the accuracy agrees")
    add = rerun.add_argument
    add("key", metavar="RUN_ID", help="first characters of a run ID, which is the name of its JSON file")
    folders = "the suite's folder, the task's own folder, or imagefolder:FOLDER"
    add("--data", type=path_of, metavar="FOLDER", help=folders)
    add("--weights", help="the weights of the stored run, as for `run` (default: from timm's hub)")
    add_plugin(rerun)
    add("--threads", type=positive, help="CPU threads (default: as recorded)")
    add_device(rerun)
    add_results(rerun)
    rerun.set_defaults(work="commands.rerun:rerun")

    tune = commands.add_parser("tune", help="search settings on val per method and task, then refit and test once")
    add_runs(tune)
    configs = "settings per method and task (default: learning rates x weight decays of the recipe)"
    add = group(tune, RECIPE).add_argument
    add("--max-configs", type=positive, metavar="N", help=configs)
    grid = "values to try, such as lr=1e-4,3e-4 rank=4,8 (default: docs/tuning.md)"
    add("--grid", nargs="+", action="extend", default=[], metavar="F=X,Y", help=grid)
    add_sweep(tune)
    tune.set_defaults(work="commands.tune:tune")

    again = "run a paper with its own settings, and print its numbers beside the measured ones"
    reproduce = commands.add_parser("reproduce", help=again)
    papers = "aoft, ssf, fact, rlrr, vpt, adapter_plus, osu, e2vpt, vfpt, hydra or dyt"
    reproduce.add_argument("paper", metavar="PAPER", help=papers)
    add_runs(reproduce, required=False, of_paper=True)
    add_sweep(reproduce)
    rest = {"split": "test", "shard": (1, 1), "again": False, "only_failed": False, "keep_logits": False}
    reproduce.set_defaults(work="commands.reproduce:reproduce", **rest)

    smoke = commands.add_parser("smoke", help="run a small benchmark without internet, weights or data, in minutes")
    add_plugin(smoke)
    add_settings(smoke)
    add_device(smoke)
    add_threads(smoke)
    kept = "keep runs, tables and the page in this folder (default: a temporary one)"
    smoke.add_argument("--results", type=folder, metavar="FOLDER", help=kept)
    add = smoke.add_mutually_exclusive_group().add_argument
    add("--baseline", type=path_of, metavar="FILE", help="compare with a baseline; exit status 1 on a regression")
    add("--write-baseline", type=path_of, metavar="FILE", help="store the results as a baseline")
    smoke.set_defaults(work="commands.smoke:smoke")

    speed = commands.add_parser("speed", help="measure images per second of training, and the share of peak FLOP/s")
    runs, sizes, execution, stored = (group(speed, title) for title in (RUNS, "sizes", EXECUTION, STORED))
    add = runs.add_argument
    specs = "names, titles or specs of methods (default: linear lora aoft_lora full)"
    with_commas(add("--methods", nargs="+", default=["linear", "lora", "aoft_lora", "full"], help=specs))
    small = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    add("--backbone", default=small, help="timm model name with its tag (default: %(default)s)")
    add("--weights", default="random", help="as for `run` (default: random, which is as fast)")
    add_settings(runs)
    add = sizes.add_argument
    add("--batch", nargs="+", type=positive, default=[64], help="batch sizes (default: 64)")
    add("--images", type=positive, metavar="N", help="images per epoch (default: 4096 on a GPU, 80 on a CPU)")
    add = execution.add_argument
    add("--precision", choices=["bf16", "fp32"], default="bf16", help="default: bf16")
    add("--engine", nargs="+", choices=ENGINES, default=["eager"], help="default: eager")
    add_device(execution)
    add_threads(execution)
    add = stored.add_argument
    add("--output", "--json", dest="json", type=path_of, metavar="FILE", help="store the results as JSON")
    speed.set_defaults(work="commands.speed:speed")

    what = "measure and store what methods cost: time, memory, FLOPs and bytes"
    cost = commands.add_parser("cost", help=what)
    cost.description = f"M{what[1:]}; `speed` measures how well training uses a device."
    runs, sizes, execution, stored = (group(cost, title) for title in (RUNS, "sizes", EXECUTION, STORED))
    add = runs.add_argument
    with_commas(add("--methods", nargs="+", required=True, help="names, titles or specs of methods, or all"))
    add_plugin(runs)
    add("--backbone", required=True, help="timm model name with its tag")
    add("--weights", default="random", help="as for `run` (default: random, which costs the same)")
    add = sizes.add_argument
    add("--image-size", type=positive, metavar="N", help="side in pixels (default: the backbone's)")
    with_commas(
        add("--batch", nargs="+", type=positive, default=[1, 64], help="batch sizes of inference (default: 1 64)")
    )
    add("--train-batch", type=positive, default=64, metavar="N", help="batch size of training (default: 64)")
    images = "images per epoch of training, at least two batches (default: 4096 on a GPU, 80 on a CPU)"
    add("--images", type=positive, metavar="N", help=images)
    execution.add_argument("--precision", choices=["bf16", "fp32"], default="bf16", help="default: bf16")
    add_device(execution)
    add_threads(execution)
    stored.add_argument("--repeat", dest="again", action="store_true", help="measure stored costs again")
    add_results(stored)
    cost.set_defaults(work="commands.cost:cost")
