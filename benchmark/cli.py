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

    data = verbs.add_parser("data", help="look after the data")
    data_verbs = data.add_subparsers(required=True, metavar="VERB")
    check = data_verbs.add_parser("check", help="one line per task: is it there, whole, and what to do next")
    _add_task_options(check)
    check.add_argument("--deep", action="store_true", help="decode every image and look for leaks between the splits")
    check.set_defaults(verb=_data_check)

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

    return show(options.what, options.style)


def _run(options: argparse.Namespace) -> int:
    from .sweep import run

    return run(options)


def _report(options: argparse.Namespace) -> int:
    from .sweep import report

    return report(options.results)


def _data_check(options: argparse.Namespace) -> int:
    from .listing import check_data

    return check_data(options)


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
