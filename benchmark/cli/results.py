"""The commands that read results: `report`, `compare`, `agreement`, `sensitivity`, `status`, `verify`, `published`."""

import argparse

from ..reporting.costs import COLUMNS
from ..reporting.drawing import FORMATS
from .options import Commands, add_results, add_runs, add_split, add_threads, folder, path_of, positive, with_commas


def declare(commands: Commands) -> None:
    """Add the commands of this module."""
    report = commands.add_parser("report", help="rebuild leaderboards, tables, figures and the page from stored runs")
    add_results(report)
    beside = "add tables that compare our results with those of papers"
    report.add_argument("--with-published", action="store_true", help=beside)
    axes = f"also draw accuracy against stored costs: {', '.join(COLUMNS)}"
    with_commas(
        report.add_argument("--x", dest="axes", nargs="+", choices=COLUMNS, default=[], metavar="COST", help=axes)
    )
    formats = f"write figures also as: {', '.join(FORMATS[1:])} (default: SVG alone)"
    add = report.add_argument
    with_commas(add("--formats", nargs="+", choices=FORMATS, default=[], metavar="FORMAT", help=formats))
    add("--no-titles", action="store_true", help="leave titles off figures, for papers with captions")
    rows = "only these rows in figures and LaTeX tables, with ranks among them (default: all)"
    with_commas(add("--methods", nargs="+", default=[], metavar="ROW", help=rows))
    there = "write the report into this folder (default: the results folder)"
    add("--output", dest="out", type=folder, metavar="FOLDER", help=there)
    report.set_defaults(work="commands.report:report")

    published = commands.add_parser("published", help="show what papers report for a method, and how much they differ")
    names = "our name of the method, the name that papers print, or a family such as AOFT"
    published.add_argument("method", metavar="METHOD", help=names)
    published.add_argument("--format", choices=["text", "json"], default="text", help="output format (default: text)")
    published.add_argument("--json", action="store_true", help="same as --format json")
    published.set_defaults(work="commands.published:show")

    compare = commands.add_parser("compare", help="compare two methods of a leaderboard with statistical tests")
    compare.add_argument("a", metavar="A", help="method spec or name of a leaderboard row")
    compare.add_argument("b", metavar="B", help="the row to compare it with")
    part = "part of the leaderboard's folder name, if both rows are on several leaderboards"
    compare.add_argument("--leaderboard", "--board", dest="board", default="", metavar="TEXT", help=part)
    add_results(compare)
    compare.set_defaults(work="reporting.compare:run")

    same = "show how often methods, and seeds of one method, predict different classes"
    agreement = commands.add_parser("agreement", help=same)
    _add_rows(agreement)
    agreement.add_argument("--by-task", action="store_true", help="print the tables of each task too")
    agreement.set_defaults(work="commands.agreement:run")

    ensemble = commands.add_parser("ensemble", help="average models that val chooses, and test the ensemble once")
    _add_rows(ensemble)
    members = "number of methods in an ensemble (default: the number of seeds)"
    ensemble.add_argument("--size", type=positive, metavar="N", help=members)
    ensemble.set_defaults(work="commands.ensemble:run")

    what = "show how much settings matter for each method, from the trials of `tune`"
    sensitivity = commands.add_parser("sensitivity", help=what)
    add_results(sensitivity)
    to = "folder of the tables and figures (default: sensitivity/ in the results folder)"
    sensitivity.add_argument("--output", "--to", dest="to", type=folder, metavar="FOLDER", help=to)
    sensitivity.set_defaults(work="commands.sensitivity:sensitivity")

    status = commands.add_parser("status", help="count finished, running, failed and missing runs")
    add_runs(status, required=False)
    add_split(status)
    of_a_plan = vars(status.parse_args([]))
    # Without defaults, a value of None says that the option was not given.
    names = {action.dest: action.option_strings[0] for action in status._actions}
    status.set_defaults(of_a_plan=of_a_plan, option_names=names, **dict.fromkeys(of_a_plan))
    add_results(status)
    add_threads(status)
    last = "list the N runs that ended last (default: 10)"
    status.add_argument("--last", nargs="?", const=10, type=positive, metavar="N", help=last)
    status.add_argument("--follow", action="store_true", help="repeat every 10 s, as long as runs are running")
    status.set_defaults(work="commands.status:status")

    verify = commands.add_parser("verify", help="check every stored run and the results folder for errors")
    add_results(verify)
    proof = "also require what a contributed result needs: predictions, a clean commit, no plug-in files"
    verify.add_argument("--strict", action="store_true", help=proof)
    verify.set_defaults(work="commands.verify:verify")


def _add_rows(command: argparse.ArgumentParser) -> None:
    """Add the options that choose rows of a leaderboard, and where tables and figures are written."""
    add = command.add_argument
    rows = "method specs or names of leaderboard rows (default: all)"
    with_commas(add("--methods", nargs="+", default=[], metavar="ROW", help=rows))
    part = "part of the leaderboard's folder name, if several leaderboards have the methods"
    add("--leaderboard", "--board", dest="board", default="", metavar="TEXT", help=part)
    add("--output", "--to", dest="to", type=path_of, metavar="FOLDER", help="also write tables and figure there")
    add_results(command)
