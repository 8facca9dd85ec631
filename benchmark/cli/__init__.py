"""The command line.

Each module of this package declares a group of commands.  A command names its function as "module:function", relative
to `benchmark`.  The function is imported only when the command runs, so `--help` is fast.
"""

import argparse
import errno
import sys
from collections.abc import Sequence
from importlib import import_module

from .. import __version__
from ..escaping import escaped_output
from . import checkpoints, data, methods, results, run
from .parsing import Parser, describe

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
    """Run one command and return the exit status.

    0: success.  1: a run failed or data are damaged.  2: the command, an option or a given file is wrong.
    130: interrupted by Ctrl-C.  143: terminated by SIGTERM.
    """
    from ..execution.screen import keep_working_without_screen

    with keep_working_without_screen() as screens, escaped_output():
        status = _run(parser().parse_args(arguments))
        sys.stdout.flush()
        lost = screens["stdout"].lost if "stdout" in screens else None
        if lost is None or lost.errno == errno.EPIPE:  # a reader such as `head` ends when it has enough
            return status
        print(f"vtab-peft: the output cannot be written: {lost.strerror}", file=sys.stderr)
        return status or 1


def _run(options: argparse.Namespace) -> int:
    """Run the command of the options and return the exit status."""
    from ...datasets.task import DataError
    from ..commands.regression_gate import BaselineError
    from ..execution.errors import ConfigurationError, ResultsNotWritable, WorkerStartError
    from ..execution.signals import EXIT_STATUS, Terminated, exit_on_sigterm
    from ..storage.json_io import StoreError

    module, _, function = options.work.partition(":")
    try:
        with exit_on_sigterm():
            return getattr(import_module(f"..{module}", __package__), function)(options)
    except (ConfigurationError, BaselineError, ValueError) as error:
        print(f"vtab-peft: {error}", file=sys.stderr)
        return 2
    except (DataError, StoreError, ResultsNotWritable, WorkerStartError, OSError) as error:
        print(f"vtab-peft: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vtab-peft: interrupted", file=sys.stderr)
        return 130
    except Terminated:
        print("vtab-peft: terminated by SIGTERM", file=sys.stderr)
        return EXIT_STATUS


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = Parser(
        prog="vtab-peft",
        description="Benchmark of parameter-efficient fine-tuning methods on Vision Transformers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"vtab-peft {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for group in (methods, run, results, checkpoints, data):
        group.declare(commands)
    describe(top)
    return top
