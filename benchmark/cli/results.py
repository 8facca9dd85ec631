"""The verbs that read stored results: `report` and `compare`."""

from .options import Verbs, add_results


def declare(verbs: Verbs) -> None:
    report = verbs.add_parser("report", help="rebuild leaderboards, tables and figures from the stored results")
    add_results(report)
    report.set_defaults(work="sweep:report")

    compare = verbs.add_parser("compare", help="say how sure it is that one method is better than another")
    compare.add_argument("a", metavar="A", help="spec or name of a leaderboard's row")
    compare.add_argument("b", metavar="B", help="the row it is compared with")
    compare.add_argument("--board", default="", metavar="TEXT", help="part of the board's folder name, if several fit")
    add_results(compare)
    compare.set_defaults(work="judging.compare:run")
