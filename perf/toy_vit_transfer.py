"""Summarise the transfer of `toy_vit` from the stored runs: `python perf/toy_vit_transfer.py`.

The table compares three things under the recipe `toy`: the linear probe on the pretrained backbone, the linear probe on
an untrained one, and the fine-tuning methods.  benchmark/toy_vit/README.md contains the table of the committed results.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from tabulate import tabulate
from vtab_peft.benchmark.reporting.leaderboard_id import by_leaderboard
from vtab_peft.benchmark.reporting.tables import DASH, percent
from vtab_peft.benchmark.storage.schema import Run
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import suite_tasks

RECIPE = "toy"


def transfer_table(runs: Sequence[Run]) -> str:
    """Return a table of accuracies in percent, mean ± standard deviation over seeds, per toy task.

    The random twin is the backbone on which only the probe was run.  Methods with fewer seeds than the probe are left
    out.

    Raises:
        ValueError: the probe was not run on exactly two backbones.
    """
    found = [
        runs
        for leaderboard, runs in by_leaderboard(runs)
        if leaderboard.suite == "toy" and leaderboard.recipe == RECIPE
    ]
    if len(found) != 2:
        raise ValueError(f"need {RECIPE} runs on the pretrained backbone and one random twin, not {len(found)}")
    twin, pretrained = sorted(found, key=lambda runs: len({run.method_spec for run in runs}))
    by_spec: dict[str, list[Run]] = defaultdict(list)
    for run in pretrained:
        by_spec[run.spec.method.spec].append(run)
    seeds = {spec: {run.spec.seed for run in runs} for spec, runs in by_spec.items()}
    complete = [spec for spec in seeds if seeds[spec] == seeds["linear"]]
    specs = sorted(complete, key=lambda spec: (spec != "linear", spec))
    columns = {"linear, random twin": twin, **{spec: by_spec[spec] for spec in specs}}
    rows = []
    for task in suite_tasks("toy"):
        cells = [_cell([run.accuracy for run in runs if run.spec.task.name == task]) for runs in columns.values()]
        rows.append([task, *cells])
    means = [_cell(_by_seed(runs)) for runs in columns.values()]
    return tabulate([*rows, ["**mean**", *means]], ["task", *columns], tablefmt="github", disable_numparse=True)


def _by_seed(runs: Sequence[Run]) -> list[float]:
    return [fmean(run.accuracy for run in runs if run.spec.seed == seed) for seed in {run.spec.seed for run in runs}]


def _cell(accuracies: Sequence[float]) -> str:
    return f"{percent(fmean(accuracies))} ± {percent(stdev(accuracies))}" if len(accuracies) > 1 else DASH


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    print(transfer_table(Store(parser.parse_args(arguments).results).load_runs()[0]))


if __name__ == "__main__":
    main()
