"""How well `toy_vit` transfers, from the stored runs: `python perf/toy_vit_transfer.py`.

Compares, under the recipe `toy`, the linear probe on the pretrained backbone, the same on a random twin, and the
methods that fine-tune.  Prints Markdown; README.md holds what it prints for the repository's own results.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd
from tabulate import tabulate
from vtab_peft.benchmark.reporting.boards import boards
from vtab_peft.benchmark.reporting.tables import DASH, percent
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import suite_tasks

RECIPE = "toy"


def transfer_table(runs: pd.DataFrame) -> str:
    """Accuracy in percent, mean ± standard deviation over seeds, per toy task.

    runs: rows of `Store.frame`; the random twin is the backbone on which only the probe was run.  Methods with fewer
    seeds than the probe are left out.

    Raises:
        ValueError: there are no runs of the probe on two backbones to compare.
    """
    own = [own for board, own in boards(runs) if board.suite == "toy" and board.recipe == RECIPE]
    if len(own) != 2:
        raise ValueError(f"need runs of recipe {RECIPE} on the pretrained backbone and one random twin, not {len(own)}")
    twin, pretrained = sorted(own, key=lambda frame: frame["spec"].nunique())
    seeds = {spec: set(own["seed"]) for spec, own in pretrained.groupby("spec")}
    complete = [str(spec) for spec in seeds if seeds[spec] == seeds["linear"]]
    specs = sorted(complete, key=lambda spec: (spec != "linear", spec))
    columns = {"linear, random twin": twin, **{spec: pretrained[pretrained["spec"] == spec] for spec in specs}}
    rows = []
    for task in suite_tasks("toy"):
        cells = [_cell(frame.loc[frame["task"] == task, "accuracy"]) for frame in columns.values()]
        rows.append([task, *cells])
    means = [_cell(frame.groupby("seed")["accuracy"].mean()) for frame in columns.values()]
    return tabulate([*rows, ["**mean**", *means]], ["task", *columns], tablefmt="github", disable_numparse=True)


def _cell(accuracies: pd.Series) -> str:
    return f"{percent(fmean(accuracies))} ± {percent(stdev(accuracies))}" if len(accuracies) > 1 else DASH


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    print(transfer_table(Store(parser.parse_args(arguments).results).frame([])))


if __name__ == "__main__":
    main()
