"""The verbs that train: `run`, `retry`, `rerun`, `tune`, `smoke`, `speed`."""

from pathlib import Path

from ..engine.numerics import ENGINES
from .options import Verbs, add_cells, add_plugin, add_results, add_run, add_sweep, positive


def declare(verbs: Verbs) -> None:
    run = verbs.add_parser("run", help="fine-tune and evaluate every (method, task, seed) that is still missing")
    add_cells(run)
    add_run(run)
    add_sweep(run)
    run.add_argument("--again", action="store_true", help="repeat cells that are stored; earlier results stay")
    run.set_defaults(work="commands.run:run", only_failed=False)

    retry = verbs.add_parser("retry", help="`run`, for those cells alone that failed the last time")
    add_cells(retry)
    add_run(retry)
    add_sweep(retry)
    retry.set_defaults(work="commands.run:run", only_failed=True, again=False)

    rerun = verbs.add_parser("rerun", help="repeat a stored result by its key, and say whether the number agrees")
    rerun.add_argument("key", metavar="KEY", help="the beginning of its key, which is the name of its JSON")
    rerun.add_argument(
        "--data", type=Path, metavar="FOLDER", help="holds the suite's task folders, or is the task's own folder"
    )
    rerun.add_argument("--weights", help="what the result was made with, as for `run`; default: timm's hub")
    add_plugin(rerun)
    rerun.add_argument("--threads", type=positive, help="torch threads (default: as recorded)")
    add_results(rerun)
    rerun.set_defaults(work="commands.rerun:rerun")

    tune = verbs.add_parser("tune", help="choose settings on val200 per method and task, then refit and test once")
    add_cells(tune)
    tune.add_argument(
        "--max-configs",
        type=positive,
        metavar="N",
        help="how many settings every method gets; default: all learning rates x weight decays of the recipe's grid",
    )
    add_sweep(tune)
    tune.set_defaults(work="commands.tune:tune")

    smoke = verbs.add_parser("smoke", help="a small benchmark without internet, weights or data, in minutes")
    add_plugin(smoke)
    smoke.add_argument("--threads", type=positive, default=2, help="torch threads (default 2)")
    gate = smoke.add_mutually_exclusive_group()
    gate.add_argument(
        "--baseline", type=Path, metavar="FILE", help="compare with stored ranges; exit 1 on a regression"
    )
    gate.add_argument("--write-baseline", type=Path, metavar="FILE", help="store the ranges this run allows")
    smoke.set_defaults(work="commands.smoke:smoke")

    speed = verbs.add_parser("speed", help="images a second on this device, and how much of its arithmetic that is")
    speed.add_argument("--methods", nargs="+", default=["linear", "lora", "aoft_lora", "full"], help="spec strings")
    speed.add_argument("--backbone", default="vit_tiny_patch16_224.augreg_in21k_ft_in1k", help="timm name with its tag")
    speed.add_argument("--weights", default="random", help="as for `run`; speed needs none, so the default is random")
    speed.add_argument("--batch", nargs="+", type=positive, default=[64], help="images in a step (default 64)")
    speed.add_argument("--images", type=positive, metavar="N", help="in an epoch (default: 4096 on a GPU, 80 on a CPU)")
    speed.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    speed.add_argument("--engine", nargs="+", choices=ENGINES, default=["eager"], help="default: eager")
    speed.add_argument("--threads", type=positive, default=2, help="torch threads (default 2)")
    speed.add_argument("--json", type=Path, metavar="FILE", help="store what was measured")
    speed.set_defaults(work="commands.speed:speed")
