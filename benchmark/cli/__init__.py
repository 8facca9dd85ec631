"""The command line.  Nothing heavy is imported until a verb needs it, so that `--help` answers at once.

Each file of this package declares a family of verbs; a verb names the function that does its work as "module:function"
of `benchmark`, which is imported when the verb is run.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from . import checkpoints as trained
from . import data, methods, results
from . import run as running

EXAMPLES = """\
examples:
  vtab-peft smoke
  vtab-peft list methods
  vtab-peft run --suite vtab1k --data vtab-1k --backbone vit_base_patch16_224.augreg_in21k --methods all
  vtab-peft run --tasks path/to/folder --backbone vit_small_patch16_224.augreg_in21k --methods linear "lora(rank=4)"
  vtab-peft tune --suite toy --backbone toy_vit --recipe toy --methods lora aoft_lora --max-configs 5
  vtab-peft report
  vtab-peft check-method my_method.py
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status.

    0 done, 1 something failed, or data is damaged, 2 the command, its arguments or a file it names are wrong,
    130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    from ...datasets.task import DataError
    from ..commands.regression_gate import BaselineError
    from ..execution.scheduler import ResultsNotWritable
    from ..execution.signals import EXIT_STATUS, Terminated, exit_on_sigterm
    from ..execution.worker_process import ConfigurationError, WorkerLost
    from ..storage.json_io import StoreError

    module, _, function = options.work.partition(":")
    try:
        with exit_on_sigterm():
            return getattr(import_module(f"..{module}", __package__), function)(options)
    except BrokenPipeError:  # `vtab-peft list methods | head`
        sys.stderr.close()
        return 0
    except (ConfigurationError, BaselineError, ValueError) as error:
        print(f"vtab-peft: {error}", file=sys.stderr)
        return 2
    except (DataError, StoreError, ResultsNotWritable, WorkerLost, OSError) as error:
        print(f"vtab-peft: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vtab-peft: stopped", file=sys.stderr)
        return 130
    except Terminated:
        print("vtab-peft: ended by SIGTERM", file=sys.stderr)
        return EXIT_STATUS


class Parser(argparse.ArgumentParser):
    """One that says which choice a wrong one is nearest to.

    Options are typed in full: records keep the command, and `columns.py` reads from it how many cells shared a device.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            from ...datasets.task import nearest

            raise argparse.ArgumentError(
                action, error.message + nearest(str(value), list(action.choices or ()))
            ) from None


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="vtab-peft",
        description="Which parameter-efficient fine-tuning method to trust on Vision Transformers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(required=True, metavar="VERB")
    for family in (methods, running, results, trained, data):
        family.declare(verbs)
    return top
