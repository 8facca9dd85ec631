"""The commands about methods: `list`, `check-method`."""

from .options import Commands, add_plugin, path_of


def declare(commands: Commands) -> None:
    """Add the commands of this module."""
    listing = commands.add_parser("list", help="list methods, tasks, backbones or recipes")
    lists = ["methods", "tasks", "backbones", "recipes"]
    listing.add_argument("what", choices=lists, metavar="WHAT", help="methods, tasks, backbones or recipes")
    listing.add_argument("names", nargs="*", default=[], metavar="NAME", help="only these; of a method, its page")
    add_plugin(listing)
    add = listing.add_mutually_exclusive_group().add_argument
    add("--format", dest="style", choices=["text", "json", "markdown"], help="default: text")
    add("--json", dest="style", action="store_const", const="json", help="same as --format json")
    add("--markdown", dest="style", action="store_const", const="markdown", help="same as --format markdown")
    listing.set_defaults(style="text", work="commands.list:show")

    check = commands.add_parser("check-method", help="check that a new method fulfils the suite's requirements")
    check.add_argument("file", type=path_of, metavar="FILE", help="a Python file that defines methods")
    check.add_argument("--only", metavar="NAME", help="one method of the file, or one check of the printed table")
    check.set_defaults(work="commands.check_method:check_method")
