"""The verbs that read results: `report`, `compare`, `status`, `verify` for our own, `published` for those of papers."""

from .options import Verbs, add_cells, add_results, add_run, positive


def declare(verbs: Verbs) -> None:
    report = verbs.add_parser("report", help="rebuild leaderboards, tables, figures and the page from stored results")
    add_results(report)
    report.add_argument(
        "--with-published",
        action="store_true",
        help="set what papers print beside what was measured, in a table of its own",
    )
    report.set_defaults(work="commands.run:report")

    published = verbs.add_parser("published", help="what papers print about a method, and how much they disagree")
    published.add_argument("method", metavar="METHOD", help="our name of it, or as papers print it")
    published.add_argument("--json", action="store_true", help="machine-readable")
    published.set_defaults(work="commands.published:show")

    compare = verbs.add_parser("compare", help="say how sure it is that one method is better than another")
    compare.add_argument("a", metavar="A", help="spec or name of a leaderboard's row")
    compare.add_argument("b", metavar="B", help="the row it is compared with")
    compare.add_argument("--board", default="", metavar="TEXT", help="part of the board's folder name, if several fit")
    add_results(compare)
    compare.set_defaults(work="reporting.compare:run")

    status = verbs.add_parser("status", help="how many cells are done, running, failed, missing")
    add_cells(status, required=False)
    add_run(status)
    of_a_plan = vars(status.parse_args([]))
    status.set_defaults(of_a_plan=of_a_plan, **dict.fromkeys(of_a_plan))  # so that it shows which of them were given
    add_results(status)
    status.add_argument("--threads", type=positive, default=2, help="torch threads (default 2)")
    status.set_defaults(work="commands.status:status")

    verify = verbs.add_parser("verify", help="check every stored result, and the results folder as a whole")
    add_results(verify)
    verify.set_defaults(work="commands.verify:verify")
