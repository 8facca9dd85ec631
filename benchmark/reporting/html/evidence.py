"""Statistics for comparing two rows on the page."""

from typing import Any

from scipy import stats

from ..leaderboards import Leaderboard
from ..significance import Significance
from ..stats import ALPHA, CONFIDENCE, LEAST_SEEDS


def over_tasks(entry: Leaderboard, found: Significance) -> dict[str, Any]:
    """Return p of Wilcoxon's test before and after Holm's correction, per pair `i-j` of row numbers.

    The correction is over all pairs, since users select a pair after seeing the table.  If there is no test, return
    only the reason.
    """
    if isinstance(found.pairs, str):
        return {"reason": found.pairs}
    index = {row["label"]: number for number, row in enumerate(entry.rows)}
    values = {(pair.a, pair.b): [float(f"{p:.3g}") for p in (pair.p, pair.p_holm)] for pair in found.pairs}
    return {"alpha": ALPHA, "pairs": {f"{index[a]}-{index[b]}": p for (a, b), p in values.items()}}


def student(seeds: int) -> dict[int, float]:
    """Return the half-width of a 95 % interval in standard errors, for 3 to `seeds` runs."""
    runs = range(LEAST_SEEDS, seeds + 1)
    return {n: round(float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)), 4) for n in runs}


def wilson() -> float:
    """Return the normal quantile of Wilson's interval."""
    return round(float(stats.norm.ppf((1 + CONFIDENCE) / 2)), 6)
