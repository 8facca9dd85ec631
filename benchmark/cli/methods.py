"""The verbs about methods: `list`, `check-method`."""

from pathlib import Path

from .options import Verbs, add_plugin


def declare(verbs: Verbs) -> None:
    listing = verbs.add_parser("list", help="what there is: methods, tasks, backbones, recipes")
    listing.add_argument("what", choices=["methods", "tasks", "backbones", "recipes"])
    add_plugin(listing)
    style = listing.add_mutually_exclusive_group()
    style.add_argument("--json", dest="style", action="store_const", const="json", help="machine-readable")
    style.add_argument("--markdown", dest="style", action="store_const", const="markdown", help="for a web page")
    listing.set_defaults(style="text", work="commands.list:show")

    judge = verbs.add_parser("check-method", help="does a method of your own keep what the suite's methods keep?")
    judge.add_argument("file", type=Path, metavar="FILE", help="a Python file with methods in it")
    judge.add_argument("--only", metavar="NAME", help="one method of the file, or one check as the table words it")
    judge.set_defaults(work="commands.check_method:check_method")
