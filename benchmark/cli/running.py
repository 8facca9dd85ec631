"""The verbs that train: `run`, `smoke`."""

from pathlib import Path

from .options import Verbs, add_cells, add_plugin, add_sweep, positive


def declare(verbs: Verbs) -> None:
    run = verbs.add_parser("run", help="fine-tune and evaluate every (method, task, seed) that is still missing")
    add_cells(run)
    run.add_argument("--split", choices=["test", "val"], default="test", help="val: train on train800, judge on val200")
    add_sweep(run)
    run.add_argument("--again", action="store_true", help="repeat cells that are stored; earlier results stay")
    run.set_defaults(work="sweep:run")

    smoke = verbs.add_parser("smoke", help="a small benchmark without internet, weights or data, in minutes")
    add_plugin(smoke)
    smoke.add_argument("--threads", type=positive, default=2, help="torch threads (default 2)")
    gate = smoke.add_mutually_exclusive_group()
    gate.add_argument(
        "--baseline", type=Path, metavar="FILE", help="compare with stored ranges; exit 1 on a regression"
    )
    gate.add_argument("--write-baseline", type=Path, metavar="FILE", help="store the ranges this run allows")
    smoke.set_defaults(work="smoke:smoke")
