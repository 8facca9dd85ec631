"""Options that several verbs share, and the types of their values."""

import argparse
from pathlib import Path
from typing import Protocol

from ..numerics import ENGINES
from ..recipes import RECIPES

RESULTS = Path("results")


class Verbs(Protocol):
    """What `add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...


def add_results(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: results")


def add_plugin(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--plugin", nargs="+", type=Path, default=[], metavar="FILE", help="Python files with methods of your own"
    )


def add_tasks(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--suite", help="vtab1k, fgvc or toy; not needed for folders given by path")
    verb.add_argument("--tasks", nargs="+", default=["all"], help="names, groups, `all`, or paths of folders")
    verb.add_argument("--data", type=Path, metavar="FOLDER", help="the folder that holds the suite's task folders")


def add_cells(verb: argparse.ArgumentParser) -> None:
    """Which cells: tasks, methods, backbone, recipe and preprocessing."""
    add_tasks(verb)
    verb.add_argument("--methods", nargs="+", required=True, help="spec strings such as lora or 'lora(rank=4)', or all")
    add_plugin(verb)
    verb.add_argument("--seeds", nargs="+", type=seed, default=[0, 1, 2], help="default: 0 1 2")
    verb.add_argument("--backbone", required=True, help="timm name with its tag; see `list backbones`")
    verb.add_argument("--weights", help="a .safetensors, .pth or .npz file, or random[:SEED]; default: timm's hub")
    verb.add_argument("--recipe", default="uniform", choices=sorted(RECIPES), metavar="NAME", help="default: uniform")
    verb.add_argument("--normalisation", choices=["own", "half", "imagenet", "none"], default="own")
    verb.add_argument("--interpolation", choices=["bicubic", "bilinear"], default="bicubic")


def add_sweep(verb: argparse.ArgumentParser) -> None:
    """How cells are run; none of it can change a number."""
    add_results(verb)
    verb.add_argument("--dry-run", action="store_true", help="print the plan, what is done, and an estimate of time")
    verb.add_argument("--max-minutes", type=minutes, metavar="N", help="start no cell that cannot end within N minutes")
    verb.add_argument("--threads", type=positive, default=2, help="torch threads, part of what is recorded (default 2)")
    verb.add_argument("--engine", choices=ENGINES, default="eager", help="compile the model, or replay CUDA graphs")
    verb.add_argument("--checkpointing", action="store_true", help="less memory for more time; the numbers stay")


def positive(text: str) -> int:
    return _whole(text, 1)


def seed(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)


def minutes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of minutes")
    return number
