"""What an executor costs a cell: the same short cells through the local one, a crew of one, and one worker on Ray.

    python perf/executors.py

The worker is warm when the clock starts.  What is left of a cell's time without training and evaluation is what it
costs to hand it out, to set up its model and to store its result; where executors differ in that, it is their doing.
They run in turn, round after round; medians are printed.  Writes perf/results/executors.json.
"""

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from short_cells import Work
from vtab_peft.benchmark.crew import Crew
from vtab_peft.benchmark.executor import Executor, WorkerProcess
from vtab_peft.benchmark.measure import provenance
from vtab_peft.benchmark.numerics import Numerics
from vtab_peft.benchmark.plan import Choice, make_plan
from vtab_peft.benchmark.progress import Progress
from vtab_peft.benchmark.ray_office import RayOffice, Share
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.station import LocalOffice
from vtab_peft.benchmark.store import Store
from vtab_peft.benchmark.sweep import cached_tasks
from vtab_peft.benchmark.worker import Describe
from vtab_peft.datasets.tasks import find

RESULTS = Path(__file__).parent / "results"
NAMES = ("local", "crew of one", "Ray, one worker")


def executor(name: str, results: Path) -> Executor:
    if name == "local":
        return WorkerProcess(results, Numerics(1))
    station = results, Numerics(1), [], sys.argv
    whole = Share(float(os.cpu_count() or 1), 0.0)
    return Crew(LocalOffice(1, station) if name == "crew of one" else RayOffice(None, whole, station))


def timed(name: str, folders: list[str], seeds: int, results: Path) -> dict[str, float]:
    """Milliseconds a cell, and of these training and evaluation."""
    choice, store = Choice(RECIPES["smoke"], range(seeds)), Store(results)
    worker = executor(name, results)
    try:
        backbone, methods = worker.describe(Describe("toy_vit", "random", None, "fp32", ["linear", "lora(rank=2)"]))
        tasks = cached_tasks(find(folders, None, None), choice.preprocessing(backbone))
        cells = make_plan(backbone, methods, tasks, choice)
        first, rest = cells[:4], cells[4:]
        worker.execute(first, store, Progress(first, io.StringIO()))
        began = time.perf_counter()
        tally = worker.execute(rest, store, Progress(rest, io.StringIO()))
        seconds = time.perf_counter() - began
    finally:
        worker.stop()
    assert tally.finished == len(rest)
    records = [store.get(cell.spec) for cell in rest]
    learning = sum(record["result"][what] for record in records if record for what in ("train_seconds", "eval_seconds"))
    return {"cell": 1000 * seconds / len(rest), "training and evaluation": 1000 * learning / len(rest)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VTAB_PEFT_CACHE"] = f"{folder}/cache"
        work = Work(Path(folder, "work"), options.seeds)
        folders = [str(work.folder / name) for name in ("bright", "dark")]
        for number in range(options.rounds):
            for name in NAMES:
                results = Path(folder, f"{name.split()[0]}-{number}")
                rounds[name].append(timed(name, folders, options.seeds, results))
    rows: list[dict[str, Any]] = []
    for name, own in rounds.items():
        rest = [round_["cell"] - round_["training and evaluation"] for round_ in own]
        medians = {what: statistics.median(round_[what] for round_ in own) for what in own[0]}
        rows.append({"executor": name, **medians, "everything else": statistics.median(rest), "rounds": own})
        print(f"{name:16}", *(f"{what} {rows[-1][what]:7.1f} ms" for what in (*own[0], "everything else")), sep="  ")
    record = {"rows": rows, "load": os.getloadavg()[0], **provenance(torch.device("cpu"), sys.argv)}
    (RESULTS / "executors.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
