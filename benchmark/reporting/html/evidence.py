"""How sure the difference of two rows is, for every pair of a board that somebody may pick on the page."""

from typing import Any

from scipy import stats

from ..leaderboards import Leaderboard
from ..significance import Significance
from ..stats import ALPHA, CONFIDENCE, LEAST_SEEDS


def over_tasks(entry: Leaderboard, found: Significance) -> dict[str, Any]:
    """Of each pair of complete rows, by their places `a-b`: Wilcoxon's p, and after Holm's correction over all pairs.

    Whoever picks a pair has looked at the table first, so the correction is over every pair there was to pick.  Where
    the board cannot support it, only the reason is given.
    """
    if isinstance(found.pairs, str):
        return {"reason": found.pairs}
    places = {row["label"]: place for place, row in enumerate(entry.rows)}
    pairs = {f"{places[pair.a]}-{places[pair.b]}": [_short(pair.p), _short(pair.p_holm)] for pair in found.pairs}
    return {"alpha": ALPHA, "pairs": pairs}


def _short(p: float) -> float:
    return float(f"{p:.3g}")


def student(seeds: int) -> dict[int, float]:
    """Half the width of a 95 % interval in standard errors, for each number of runs from 3 to `seeds`."""
    runs = range(LEAST_SEEDS, seeds + 1)
    return {n: round(float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)), 4) for n in runs}


def wilson() -> float:
    """The normal quantile of Wilson's interval of a run over test images."""
    return round(float(stats.norm.ppf((1 + CONFIDENCE) / 2)), 6)
