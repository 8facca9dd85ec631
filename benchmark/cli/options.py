"""Options that several verbs share, and the types of their values."""

import argparse
from pathlib import Path
from typing import Protocol

from ..engine.numerics import ENGINES
from ..execution.signals import GRACE_SECONDS
from ..recipes import RECIPES

RESULTS = Path("results")
MOST = 2**31 - 1
"""Of whole numbers: what 32 bits hold."""


class Verbs(Protocol):
    """What `add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...


def add_results(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--results", type=folder, default=RESULTS, metavar="FOLDER", help="default: results")


def add_plugin(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--plugin", nargs="+", type=Path, default=[], metavar="FILE", help="Python files with methods of your own"
    )


def add_tasks(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--suite", help="vtab1k, fgvc or toy; not needed for folders given by path")
    verb.add_argument("--tasks", nargs="+", default=["all"], help="names, groups, `all`, or paths of folders")
    verb.add_argument("--data", type=Path, metavar="FOLDER", help="the folder that holds the suite's task folders")


def add_cells(verb: argparse.ArgumentParser, required: bool = True) -> None:
    """Which cells: tasks, methods, backbone, recipe, preprocessing, and what is kept of them."""
    add_tasks(verb)
    verb.add_argument(
        "--methods", nargs="+", required=required, help="spec strings such as lora or 'lora(rank=4)', or all"
    )
    add_plugin(verb)
    verb.add_argument("--seeds", nargs="+", type=seed, default=[0, 1, 2], help="default: 0 1 2")
    verb.add_argument("--backbone", required=required, help="timm name with its tag; see `list backbones`")
    verb.add_argument("--weights", help="a .safetensors, .pth or .npz file, or random[:SEED]; default: timm's hub")
    verb.add_argument("--recipe", default="uniform", choices=sorted(RECIPES), metavar="NAME", help="default: uniform")
    verb.add_argument(
        "--keep-adapters",
        action="store_true",
        help="also store what was trained (of `tune` the refits); repeats cells stored without it",
    )
    verb.add_argument("--normalisation", choices=["own", "half", "imagenet", "none"], default="own")
    verb.add_argument("--interpolation", choices=["bicubic", "bilinear"], default="bicubic")


def add_run(verb: argparse.ArgumentParser) -> None:
    """What `run` has beyond `add_cells` and `add_sweep`."""
    verb.add_argument(
        "--split", choices=["test", "val"], default="test", help="val: train on train800, judge on val200"
    )
    verb.add_argument(
        "--oracle",
        action="store_true",
        help="also record the best epoch on the test images, as many papers report it; it ranks nothing",
    )
    verb.add_argument(
        "--shard", type=part, default=(1, 1), metavar="I/N", help="the I-th of N parts of equal cost, for job arrays"
    )


def add_sweep(verb: argparse.ArgumentParser) -> None:
    """How cells are run; none of it can change a number."""
    add_results(verb)
    verb.add_argument("--dry-run", action="store_true", help="print the plan, what is done, and an estimate of time")
    verb.add_argument("--max-minutes", type=minutes, metavar="N", help="start no cell that cannot end within N minutes")
    verb.add_argument(
        "--grace",
        type=seconds,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help=f"after SIGTERM the cell in flight may end within so long (default {GRACE_SECONDS:g})",
    )
    verb.add_argument("--threads", type=positive, default=2, help="torch threads, part of what is recorded (default 2)")
    verb.add_argument("--engine", choices=ENGINES, default="eager", help="compile the model, or replay CUDA graphs")
    verb.add_argument("--checkpointing", action="store_true", help="less memory for more time; the numbers stay")
    verb.add_argument(
        "--micro-batch",
        type=positive,
        metavar="N",
        help="images at most in a forward and backward pass; the batch stays (default: all, halved if memory is short)",
    )
    verb.add_argument("--workers", type=positive, default=1, metavar="N", help="processes on this machine (default 1)")
    verb.add_argument("--executor", choices=["local", "ray"], default="local", help="ray: all GPUs, or a cluster's")
    verb.add_argument("--ray-address", metavar="ADDRESS", help="of a running cluster; default: this machine alone")
    verb.add_argument("--gpus-per-cell", type=share, metavar="X", help="with Ray; fractions share a GPU (default 1)")
    verb.add_argument("--cpus-per-cell", type=share, metavar="X", help="with Ray (default: --threads)")


def folder(text: str) -> Path:
    """One that may be made yet."""
    if (path := Path(text)).exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; give a folder")
    return path


def positive(text: str) -> int:
    return _whole(text, 1)


def seed(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {MOST}")
    return int(text)


def part(text: str) -> tuple[int, int]:
    """`3/8`: the third of eight parts."""
    index, _, parts = text.partition("/")
    if not (text.isascii() and index.isdecimal() and parts.isdecimal() and 1 <= int(index) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a plan: say i/n with i from 1 to n, such as 3/8")
    return int(index), int(parts)


def share(text: str) -> float:
    """What a worker takes of a node."""
    if not 0 <= (number := _number(text)) < float("inf") or (number > 1 and number != int(number)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fraction up to 1 nor a whole number")
    return number


def minutes(text: str) -> float:
    if not 0 < (number := _number(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of minutes")
    return number


def seconds(text: str) -> float:
    if not 0 <= (number := _number(text)) <= 24 * 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to a day")
    return number


def _number(text: str) -> float:
    """Not a number where it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
