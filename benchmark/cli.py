"""The command line.  Nothing heavy is imported until a verb needs it, so that `--help` answers at once."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .recipes import RECIPES

RESULTS = Path("results")

EXAMPLES = """\
examples:
  vtab-peft smoke
  vtab-peft list methods
  vtab-peft run --suite vtab1k --data vtab-1k --backbone vit_base_patch16_224.augreg_in21k --methods all
  vtab-peft run --suite vtab1k --data vtab-1k --tasks svhn --methods "lora(rank=4)" --again
  vtab-peft run --tasks path/to/folder --methods linear lora aoft_lora --recipe uniform
  vtab-peft report
  vtab-peft check-method my_method.py
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0 done, 1 something failed, 2 bad input, 130 stopped by Ctrl-C."""
    options = parser().parse_args(arguments)
    from ..datasets.task import DataError
    from .executor import Refused, Unwritable, WorkerLost
    from .gate import BaselineError
    from .store import StoreError

    try:
        return options.verb(options)
    except (Refused, BaselineError, ValueError) as error:
        print(f"vtab-peft: {error}", file=sys.stderr)
        return 2
    except (DataError, StoreError, Unwritable, WorkerLost) as error:
        print(f"vtab-peft: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `vtab-peft list methods | head`
        sys.stderr.close()
        return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="vtab-peft",
        description="Which parameter-efficient fine-tuning method to trust on Vision Transformers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(required=True, metavar="VERB")

    listing = verbs.add_parser("list", help="what there is: methods, tasks, backbones, recipes")
    listing.add_argument("what", choices=["methods", "tasks", "backbones", "recipes"])
    _add_plugin(listing)
    style = listing.add_mutually_exclusive_group()
    style.add_argument("--json", dest="style", action="store_const", const="json", help="machine-readable")
    style.add_argument("--markdown", dest="style", action="store_const", const="markdown", help="for a web page")
    listing.set_defaults(style="text")
    listing.set_defaults(verb=_list)

    run = verbs.add_parser("run", help="fine-tune and evaluate every (method, task, seed) that is still missing")
    _add_run_options(run)
    run.set_defaults(verb=_run)

    report = verbs.add_parser("report", help="rebuild leaderboards, tables and figures from the stored results")
    _add_results(report)
    report.set_defaults(verb=_report)

    judge = verbs.add_parser("check-method", help="does a method of your own keep what the suite's methods keep?")
    judge.add_argument("file", type=Path, metavar="FILE", help="a Python file with methods in it")
    judge.add_argument("--only", metavar="NAME", help="one method of the file, or one check as the table words it")
    judge.set_defaults(verb=_check_method)

    data = verbs.add_parser("data", help="look after the data")
    data_verbs = data.add_subparsers(required=True, metavar="VERB")
    check = data_verbs.add_parser("check", help="one line per task: is it there, whole, and what to do next")
    _add_task_options(check)
    check.add_argument("--deep", action="store_true", help="decode every image and look for leaks between the splits")
    check.set_defaults(verb=_data_check)
    status = data_verbs.add_parser("status", help="the counts at a glance: `check` without the reasons")
    _add_task_options(status)
    status.set_defaults(verb=_data_status)
    cache = data_verbs.add_parser("cache", help="what decoded images take on the disk, and room for others")
    act = cache.add_mutually_exclusive_group(required=True)
    act.add_argument("--list", action="store_true", help="every task: its size, its last use, and where it came from")
    act.add_argument("--prune", action="store_true", help="remove what nobody can use any more")
    cache.add_argument("--dry-run", action="store_true", help="with --prune: only say what would go")
    cache.set_defaults(verb=_data_cache)
    fetch = data_verbs.add_parser("fetch", help="get the original files, or be told what to put where by hand")
    fetch.add_argument("tasks", nargs="*", default=["all"], metavar="TASK", help="names, groups, or all (default)")
    fetch.add_argument("--suite", default="vtab1k", choices=["vtab1k", "fgvc"], help="default: vtab1k")
    fetch.add_argument("--raw", type=Path, metavar="FOLDER", help="where the original files go, a folder per task")
    fetch.add_argument("--archive", action="store_true", help="take the shared vtab-1k archive (JPEG) instead")
    fetch.add_argument("--data", type=Path, metavar="FOLDER", help="with --archive: where its task folders go")
    fetch.add_argument("--dry-run", action="store_true", help="print what is there, and what would be done")
    fetch.set_defaults(verb=_data_fetch)
    build = data_verbs.add_parser("build", help="make official tasks out of the original files, without loss")
    build.add_argument("tasks", nargs="*", default=["all"], metavar="TASK", help="names, groups, or all (default)")
    build.add_argument("--suite", default="vtab1k", choices=["vtab1k", "fgvc"], help="default: vtab1k")
    build.add_argument("--raw", type=Path, required=True, metavar="FOLDER", help="holds a folder of originals per task")
    build.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="where the task folders go")
    build.add_argument("--again", action="store_true", help="replace tasks that are there")
    build.set_defaults(verb=_data_build)

    smoke = verbs.add_parser("smoke", help="a small benchmark without internet, weights or data, in minutes")
    _add_plugin(smoke)
    smoke.add_argument("--threads", type=_positive, default=2, help="torch threads (default 2)")
    gate = smoke.add_mutually_exclusive_group()
    gate.add_argument(
        "--baseline", type=Path, metavar="FILE", help="compare with stored ranges; exit 1 on a regression"
    )
    gate.add_argument("--write-baseline", type=Path, metavar="FILE", help="store the ranges this run allows")
    smoke.set_defaults(verb=_smoke)
    return top


def _add_task_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--suite", help="vtab1k, fgvc or toy; not needed for folders given by path")
    verb.add_argument("--tasks", nargs="+", default=["all"], help="names, groups, `all`, or paths of folders")
    verb.add_argument("--data", type=Path, metavar="FOLDER", help="the folder that holds the suite's task folders")


def _add_results(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: results")


def _add_plugin(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--plugin", nargs="+", type=Path, default=[], metavar="FILE", help="Python files with methods of your own"
    )


def _add_run_options(run: argparse.ArgumentParser) -> None:
    _add_task_options(run)
    run.add_argument("--methods", nargs="+", required=True, help="spec strings such as lora or 'lora(rank=4)', or all")
    _add_plugin(run)
    run.add_argument("--seeds", nargs="+", type=_seed, default=[0, 1, 2], help="default: 0 1 2")
    run.add_argument("--backbone", required=True, help="timm name with its tag; see `list backbones`")
    run.add_argument("--weights", help="a .safetensors, .pth or .npz file, or random[:SEED]; default: timm's hub")
    run.add_argument("--recipe", default="uniform", choices=sorted(RECIPES), metavar="NAME", help="default: uniform")
    run.add_argument("--split", choices=["test", "val"], default="test", help="val: train on train800, judge on val200")
    run.add_argument("--normalisation", choices=["own", "half", "imagenet", "none"], default="own")
    run.add_argument("--interpolation", choices=["bicubic", "bilinear"], default="bicubic")
    _add_results(run)
    run.add_argument("--dry-run", action="store_true", help="print the plan, what is done, and an estimate of time")
    run.add_argument("--again", action="store_true", help="repeat cells that are stored; earlier results stay")
    run.add_argument("--max-minutes", type=_minutes, metavar="N", help="start no cell that cannot end within N minutes")
    run.add_argument("--threads", type=_positive, default=2, help="torch threads, part of what is recorded (default 2)")


def _list(options: argparse.Namespace) -> int:
    from .listing import show

    return show(options.what, options.style, options.plugin)


def _run(options: argparse.Namespace) -> int:
    from .sweep import run

    return run(options)


def _report(options: argparse.Namespace) -> int:
    from .sweep import report

    return report(options.results)


def _check_method(options: argparse.Namespace) -> int:
    from .checking import check_method

    return check_method(options)


def _data_check(options: argparse.Namespace) -> int:
    from .data import check_data

    return check_data(options)


def _data_status(options: argparse.Namespace) -> int:
    from .data import status

    return status(options)


def _data_cache(options: argparse.Namespace) -> int:
    from .data import cache

    return cache(options)


def _data_fetch(options: argparse.Namespace) -> int:
    from .fetching import fetch_data

    return fetch_data(options)


def _data_build(options: argparse.Namespace) -> int:
    from .building import build_data

    return build_data(options)


def _smoke(options: argparse.Namespace) -> int:
    from .smoke import smoke

    return smoke(options)


def _positive(text: str) -> int:
    return _whole(text, 1)


def _seed(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = float("nan")
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of minutes")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
