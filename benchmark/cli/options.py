"""Options that several commands share, and the types of their values."""

import argparse
import re
from pathlib import Path
from typing import Any, Protocol

from ..engine.numerics import ENGINES
from ..execution.run_log import LOGS
from ..execution.signals import GRACE_SECONDS
from ..recipes import RECIPES

RESULTS = Path("results")
RUNS, RECIPE, STORED, EXECUTION = "what to run", "recipe and input", "results", "execution"
"""Titles of groups in `--help`."""
LARGEST = 2**31 - 1
"""Largest whole number that an option accepts."""


class RecipeNames(list[str]):
    """Choices of `--recipe`: the names, and any .toml file."""

    def __contains__(self, text: object) -> bool:
        return super().__contains__(text) or str(text).endswith(".toml")


class Commands(Protocol):
    """The return type of `add_subparsers`."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...


class Options(Protocol):
    """A command, or a group of its options."""

    def add_argument(self, *names: str, **more: Any) -> argparse.Action: ...


def group(command: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """Return the group of options with this title in `--help`."""
    known = {found.title: found for found in command._action_groups}
    return known.get(title) or command.add_argument_group(title)


def with_commas(action: argparse.Action) -> None:
    """Let a list be typed with commas too."""
    action.commas = True  # pyright: ignore[reportAttributeAccessIssue]


def add_results(options: Options) -> None:
    """Add `--results`."""
    options.add_argument("--results", type=folder, default=RESULTS, metavar="FOLDER", help="default: results")


def add_plugin(options: Options) -> None:
    """Add `--plugin`."""
    files = "Python files that define more methods or backbones"
    options.add_argument("--plugin", nargs="+", type=path_of, default=[], metavar="FILE", help=files)


def add_threads(options: Options) -> None:
    """Add `--threads`."""
    options.add_argument("--threads", type=positive, default=2, help="CPU threads of each process (default: 2)")


def add_device(options: Options) -> None:
    """Add `--device`."""
    names = "cpu, cuda, cuda:N or mps (default: the visible GPUs, else the CPU)"
    options.add_argument("--device", type=device, metavar="NAME", help=names)


def add_tasks(options: Options) -> None:
    """Add the options that select tasks."""
    add = options.add_argument
    add("--suite", help="vtab1k, fgvc or toy; not needed for task folders given by path")
    tasks = "names or groups of tasks, paths of task folders, or imagefolder:PATH with class folders (default: all)"
    with_commas(add("--tasks", nargs="+", default=["all"], help=tasks))
    add("--data", type=path_of, metavar="FOLDER", help="folder that contains the suite's task folders")


def add_runs(command: argparse.ArgumentParser, required: bool = True, of_paper: bool = False) -> None:
    """Add the options that select runs: tasks, methods, seeds, backbone, recipe and preprocessing.

    of_paper: where options are left out, those of a paper are used, and `--help` says so.
    """

    def default(own: str) -> str:
        return " (default: the paper's)" if of_paper else f" (default: {own})" if own else ""

    runs, recipe, results = (group(command, title) for title in (RUNS, RECIPE, STORED))
    add_tasks(runs)
    add = runs.add_argument
    specs = f"names, titles or specs such as lora or 'lora(rank=4)', or all{default('')}"
    with_commas(add("--methods", nargs="+", required=required, help=specs))
    add_plugin(runs)
    with_commas(add("--seeds", nargs="+", type=seed, default=[0, 1, 2], help="default: 0 1 2"))
    few = "train on N images per class, with N others for validation; see docs/few-shot.md"
    with_commas(add("--shots", nargs="+", type=positive, default=[], metavar="N", help=few))
    drawn = "seeds that choose the images of --shots (default: 0 1 2)"
    with_commas(add("--shot-seed", nargs="+", type=seed, metavar="SEED", help=drawn))
    add("--backbone", required=required, help=f"timm model name with its tag; see `list backbones`{default('')}")
    add("--weights", help="a file, hf:OWNER/NAME or random[:SEED] (default: from timm's hub)")
    add = recipe.add_argument
    names = f"name of `list recipes`, or a .toml file{default('uniform')}"
    base, own, cubic = (None, None, None) if of_paper else ("uniform", "own", "bicubic")
    add("--recipe", default=base, choices=RecipeNames(sorted(RECIPES)), metavar="NAME", help=names)
    add_settings(recipe)
    mean = "mean and std of the input" + default("own, the backbone's")
    add("--normalisation", choices=["own", "half", "imagenet", "none"], default=own, help=mean)
    resizing = f"for resizing{default('bicubic')}"
    add("--interpolation", choices=["bicubic", "bilinear"], default=cubic, help=resizing)
    adapters = "save trained adapters (of `tune` the refits); repeats runs that were stored without"
    results.add_argument("--save-adapters", "--keep-adapters", dest="keep_adapters", action="store_true", help=adapters)


def add_settings(options: Options) -> None:
    """Add `--set`."""
    fields = "values that differ from the recipe's, such as lr=3e-4 epochs=20; see docs/recipes.md"
    options.add_argument("--set", dest="settings", nargs="+", action="extend", default=[], metavar="F=X", help=fields)


def add_split(command: argparse.ArgumentParser) -> None:
    """Add the options of `run`, `retry` and `status` that `tune` does not have."""
    add = group(command, RUNS).add_argument
    split = "test: train on train and val, evaluate on test; val: train on train, evaluate on val (default: test)"
    add("--split", choices=["test", "val"], default="test", help=split)
    add("--shard", type=part, default=(1, 1), metavar="I/N", help="run part I of N parts of equal cost")
    add = group(command, STORED).add_argument
    add("--oracle", action="store_true", help="also record the best test epoch; rankings do not use it")
    logits = "store logits with the predictions, for `ensemble`; repeats runs that were stored without"
    add("--keep-logits", action="store_true", help=logits)


def add_sweep(command: argparse.ArgumentParser) -> None:
    """Add the options that say how runs are executed; they change accuracies by rounding at most."""
    results, execution, ray = (group(command, title) for title in (STORED, EXECUTION, "with Ray"))
    add_results(results)
    results.add_argument("--dry-run", action="store_true", help="print the plan, its progress and a time estimate")
    logs = "log loss and learning rate of each epoch; of runs on val also the accuracy"
    with_commas(results.add_argument("--log", nargs="+", choices=LOGS, default=[], help=logs))
    add = execution.add_argument
    add("--max-minutes", type=minutes, metavar="N", help="start no run that is expected to end after N minutes")
    grace = f"time to finish the current run after SIGTERM (default: {GRACE_SECONDS:g})"
    add("--grace", type=seconds, default=GRACE_SECONDS, metavar="SECONDS", help=grace)
    add_device(execution)
    add_threads(execution)
    add("--engine", choices=ENGINES, default="eager", help="torch.compile and/or CUDA graphs (default: eager)")
    add("--checkpointing", action="store_true", help="activation checkpointing: less memory, more time")
    micro = "most images per forward pass (default: the batch, halved when out of memory)"
    add("--micro-batch", type=positive, metavar="N", help=micro)
    workers = "worker processes, which take the visible GPUs in turn (default: 1)"
    add("--workers", type=positive, default=1, metavar="N", help=workers)
    add("--workers-per-gpu", type=positive, metavar="N", help="N workers on each visible GPU")
    add("--executor", choices=["local", "ray"], default="local", help="ray: all GPUs, or a cluster (default: local)")
    add = ray.add_argument
    add("--ray-address", metavar="ADDRESS", help="of a Ray cluster (default: this machine)")
    gpus, cpus = "a fraction shares a GPU (default: 1)", "default: --threads"
    add("--gpus-per-run", "--gpus-per-cell", dest="gpus_per_cell", type=share, metavar="X", help=gpus)
    add("--cpus-per-run", "--cpus-per-cell", dest="cpus_per_cell", type=share, metavar="X", help=cpus)


def path_of(text: str) -> Path:
    """Return a path; `~` is the home folder, which no shell replaces in `--results=~/runs` or in Python."""
    if not text:  # as from an unset variable of the shell; `Path` would take it for the current folder
        raise argparse.ArgumentTypeError("the path is empty")
    from ...datasets.reading import expanded  # numpy: not for --help

    return expanded(text)


def folder(text: str) -> Path:
    """Return the path of a folder, which need not exist."""
    path = path_of(text)
    try:
        if path.exists() and not path.is_dir():
            raise argparse.ArgumentTypeError(f"{text} is a file; give a folder")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text[:60]}...: cannot be used as a folder ({error.strerror})") from None
    return path


def device(text: str) -> str:
    """Parse the name of a device."""
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device; give cpu, cuda, cuda:N (such as cuda:1) or mps")
    return text


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    return _whole(text, 1)


def seed(text: str) -> int:
    """Parse a whole number from 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {LARGEST}")
    return int(text)


def part(text: str) -> tuple[int, int]:
    """Parse a shard: `3/8` is the third of eight."""
    index, _, parts = text.partition("/")
    if not (text.isascii() and index.isdecimal() and parts.isdecimal() and 1 <= int(index) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shard; give I/N with I from 1 to N, such as 3/8")
    return int(index), int(parts)


def share(text: str) -> float:
    """Parse the number of CPUs or GPUs that a run takes."""
    if not 0 <= (number := _number(text)) < float("inf") or (number > 1 and number != int(number)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fraction up to 1 nor a whole number")
    return number


def fraction(text: str) -> float:
    """Parse a number between 0 and 1."""
    if not 0 < (number := _number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return number


def minutes(text: str) -> float:
    """Parse a positive number."""
    if not 0 < (number := _number(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of minutes")
    return number


def seconds(text: str) -> float:
    """Parse a number of seconds of at most a day."""
    if not 0 <= (number := _number(text)) <= 24 * 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return number


def _number(text: str) -> float:
    """Return NaN for text that is not a number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
