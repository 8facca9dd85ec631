"""The command line.  Nothing heavy is imported until a verb needs it, so that `--help` answers at once.

Each file of this package declares a family of verbs; a verb names the function that does its work as "module:function"
of `benchmark`, which is imported when the verb is run.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from . import data, methods, results, running

EXAMPLES = """\
examples:
  vtab-peft smoke
  vtab-peft list methods
  vtab-peft run --suite vtab1k --data vtab-1k --backbone vit_base_patch16_224.augreg_in21k --methods all
  vtab-peft run --suite vtab1k --data vtab-1k --tasks svhn --methods "lora(rank=4)" --again
  vtab-peft run --tasks path/to/folder --methods linear lora aoft_lora --recipe uniform
  vtab-peft tune --suite toy --backbone toy_vit --recipe toy --methods lora aoft_lora --max-configs 5
  vtab-peft report
  vtab-peft check-method my_method.py
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0 done, 1 something failed, 2 bad input, 130 stopped by Ctrl-C."""
    options = parser().parse_args(arguments)
    from ...datasets.task import DataError
    from ..agenda import Unwritable
    from ..executor import Refused, WorkerLost
    from ..gate import BaselineError
    from ..store import StoreError

    module, _, function = options.work.partition(":")
    try:
        return getattr(import_module(f"..{module}", __package__), function)(options)
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
    for family in (methods, running, results, data):
        family.declare(verbs)
    return top
