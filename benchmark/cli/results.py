"""The verbs that read stored results: `report`."""

from .options import Verbs, add_results


def declare(verbs: Verbs) -> None:
    report = verbs.add_parser("report", help="rebuild leaderboards, tables and figures from the stored results")
    add_results(report)
    report.set_defaults(work="sweep:report")
