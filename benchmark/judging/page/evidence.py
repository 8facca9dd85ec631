"""How sure the difference of two rows is, for every pair of a board that somebody may pick on the page."""

from typing import Any

from scipy import stats

from ..boards import Leaderboard
from ..stats import ALPHA, CONFIDENCE, LEAST_SEEDS, Unsupported, compare_over_tasks


def over_tasks(entry: Leaderboard) -> dict[str, Any]:
    """Of each pair of complete rows, by their places `a-b`: Wilcoxon's p, and after Holm's correction over all pairs.

    Whoever picks a pair has looked at the table first, so the correction is over every pair there was to pick.  Where
    the board cannot support it, only the reason is given.
    """
    complete = {
        str(place): [row[f"accuracy_{task.label}"] for task in entry.tasks]
        for place, row in enumerate(entry.rows)
        if row["rank"] is not None
    }
    try:
        pairs = compare_over_tasks(complete) if len(complete) > 1 else []
    except Unsupported as refusal:
        return {"reason": str(refusal)}
    digits = "{:.3g}".format
    return {
        "alpha": ALPHA,
        "pairs": {f"{pair.a}-{pair.b}": [float(digits(pair.p)), float(digits(pair.p_holm))] for pair in pairs},
    }


def student(seeds: int) -> dict[int, float]:
    """Half the width of a 95 % interval in standard errors, for each number of runs from 3 to `seeds`."""
    runs = range(LEAST_SEEDS, seeds + 1)
    return {n: round(float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)), 4) for n in runs}
