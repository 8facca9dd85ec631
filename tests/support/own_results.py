"""Tables of the repository's own results, computed from the records with pandas and scipy alone."""

import hashlib
from pathlib import Path

import pandas as pd
from scipy import stats
from vtab_peft.benchmark.reporting.text_table import text_table
from vtab_peft.benchmark.storage.schema import to_frame
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.benchmark.toy_vit import WEIGHTS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


def stored_runs() -> pd.DataFrame:
    """Return all runs of the repository, a row each."""
    return to_frame(Store(RESULTS).load_runs()[0])


def toy_runs(runs: pd.DataFrame, recipe: str = "toy") -> pd.DataFrame:
    """Return the test runs of the toy suite with the weights of today."""
    of_suite = (runs["suite"] == "toy") & (runs["recipe"] == recipe) & (runs["split"] == "test")
    return runs[of_suite & (runs["backbone_sha256"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest())]


def by_task(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of specs and seeds that have every task, a column for each task."""
    return runs.pivot_table(index=["spec", "seed"], columns="task", values="accuracy").dropna()


def differences(accuracy: pd.DataFrame, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """Compare the means over tasks, in points; intervals are over shared seeds."""
    rows = []
    for a, b in pairs:
        change = 100 * (accuracy.loc[a] - accuracy.loc[b]).dropna()
        means, wins = change.mean(axis=1), int((change.mean() > 0).sum())
        ahead_on = f"{wins} of {change.shape[1]}"
        rows.append([f"`{a}`", f"`{b}`", len(means), means.mean(), ends(means) if len(means) >= 3 else "—", ahead_on])
    return pd.DataFrame(rows, columns=["A", "B", "seeds", "A - B", "95 % over seeds", "A better on"])


def ends(differences: pd.Series) -> str:
    """Return the ends of Student's 95 % interval of the mean."""
    low, high = stats.t.interval(0.95, len(differences) - 1, differences.mean(), stats.sem(differences))
    return f"{low:+.1f} to {high:+.1f}"


def aligned(table: pd.DataFrame, names: int) -> str:
    """Return a Markdown table; the first columns hold names."""
    shown = table.map(lambda value: f"{value:+.1f}" if isinstance(value, float) else value)
    return text_table([*shown], shown.to_numpy().tolist(), "l" * names + "r" * (table.shape[1] - names), "pipe")
