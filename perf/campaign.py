"""The fault campaign: sweeps whose processes are killed at random moments, and what that leaves of their results.

    python perf/campaign.py                 300 kills in 200 blows: one worker, two workers, Ray
    python perf/campaign.py --kills 0 10 0  ten, with two workers alone

`kill -9` hits a worker, the parent, or all of them at once, half of the time at any moment since the last blow, half of
the time within two cells of a new result.  A command that was killed, or that ended with lost cells, is given again,
until every cell is there; a sweep that is complete too early is followed by another.  Each is then held against a sweep
that nobody disturbed: the same files and no other, every cell bit for bit.  Writes perf/results/campaign.json; rows of
executors that were not struck this time stay in it.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from measured import RESULTS
from short_cells import Work, said_of, stored, wait_for
from vtab_peft.benchmark.engine.timing import provenance
from vtab_peft.datasets.atomic_io import PREFIX, is_abandoned

HALF = str(max(1, (os.cpu_count() or 1) // 2))
EXECUTORS = {
    "one worker": [],
    "two workers": ["--workers", "2"],
    "Ray, two workers": ["--executor", "ray", "--cpus-per-cell", HALF],
}
KILLS = (120, 120, 60)
"""Of each executor; starting Ray takes longest.  A blow often kills a parent and its workers at once."""
TIMED = ("train_seconds", "eval_seconds", "compile_seconds", "images_per_second", "peak_bytes")
"""What a record says of a cell that is not the same twice."""
UNBORN = "reduction.pickle.load(from_parent)"
"""Where Python itself stops, with a traceback, a child whose parent was killed before it had said what to run."""
ENDED_SECONDS = 60.0
"""Within which everything that a killed parent started must be gone."""


@dataclass
class Blows:
    """What is done to the sweeps of one executor, and what was seen."""

    work: Work
    rng: random.Random
    left: int
    seen: Counter[str] = field(default_factory=Counter)
    half_written: set[str] = field(default_factory=set)
    started: list[psutil.Process] = field(default_factory=list)
    """Everything that killed parents had started."""

    def sweep(self, results: Path, options: list[str]) -> None:
        """One sweep, struck until it is complete or the blows are used up, and then left to end."""
        done = False
        while not done:
            self.seen["commands"] += 1
            run = self.work.start(results, *options)
            while run.poll() is None and self.left > 0:
                self._wait_for_a_moment(run, results)
                if run.poll() is None:
                    self._strike(run, results)
            done = run.wait() == 0 and stored(results) == self.work.cells

    def survivors(self) -> list[psutil.Process]:
        """What a dead parent's processes left running; it is ended."""
        _, alive = psutil.wait_procs(self.started, ENDED_SECONDS)
        for process in alive:
            process.kill()
        self.started.clear()
        return alive

    def _wait_for_a_moment(self, run: psutil.Popen, results: Path) -> None:
        reach = self.work.first_seconds
        if self.rng.random() < 0.5:
            wait_for(run, results, stored(results) + 1)
            reach = 2 * self.work.cell_seconds
        with suppress(psutil.TimeoutExpired):
            run.wait(self.rng.uniform(0, reach))

    def _strike(self, run: psutil.Popen, results: Path) -> None:
        with suppress(psutil.NoSuchProcess):
            family = run.children(recursive=True)
            workers = [process for process in family if is_worker(process)]
            one = [self.rng.choice(workers or [run])]
            victims = self.rng.choices((one, [run], [*workers, run]), (3, 3, 4))[0]
            for victim in victims:
                victim.kill()
            if run in victims:
                self.started += family
            self.seen.update("parents" if victim is run else "workers" for victim in victims)
            self.seen.update(blows=1, before_any_result=not stored(results))
            self.left -= len(victims)
            psutil.wait_procs(victims, ENDED_SECONDS)
            self.half_written |= set(half_written(results))


def is_worker(process: psutil.Process) -> bool:
    """Whether it runs cells, or guards on Ray the process that does."""
    with suppress(psutil.Error):
        line = " ".join(process.cmdline())
        return "spawn_main" in line or line.startswith("ray::RaySupervisedWorker")
    return False


def half_written(results: Path) -> Iterator[str]:
    """Files whose writer was killed while it wrote them."""
    for path in results.rglob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):
            if is_abandoned(path.name, path.stat().st_mtime):
                yield path.name


def what_is_wrong(work: Work, calm: Path, struck: Path) -> list[str]:
    """Everything in which the results of a struck sweep are not those of the undisturbed one."""
    expected, found = (
        {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} for root in (calm, struck)
    )
    wrong = [f"{name} is missing" for name in sorted(expected - found)]
    wrong += [f"{name} is too much" for name in sorted(found - expected)]
    for name in sorted(name for name in expected & found if name.startswith("runs/")):
        same = essence(calm / name) == essence(struck / name)
        wrong += [] if same else [f"{name} differs from the undisturbed one"]
    if work.command(["verify"], struck).wait():
        wrong.append("`verify` finds something wrong")
    return wrong


def essence(path: Path) -> Any:
    """Of a record what must be the same however the cell came to be run; of its predictions every byte."""
    if path.suffix != ".json":
        return path.read_bytes()
    record = json.loads(path.read_text())
    result = {name: value for name, value in record["result"].items() if name not in TIMED}
    return record["key"], record["spec"], record["predictions_sha256"], record["facts"], result


def strike(work: Work, calm: Path, executor: str, kills: int, seed: int) -> dict[str, Any]:
    """The part of the campaign that is against one executor: what was done, and what was wrong afterwards."""
    began, wrong, sweeps, tracebacks = time.monotonic(), [], 0, 0
    blows = Blows(work, random.Random(f"{seed} {executor}"), kills)
    while blows.left > 0:
        sweeps += 1
        results = calm.with_name(f"{executor.replace(' ', '-')}-{sweeps}")
        blows.sweep(results, EXECUTORS[executor])
        wrong += [f"still running: {process}" for process in blows.survivors()]
        wrong += [f"{executor}, sweep {sweeps}: {text}" for text in what_is_wrong(work, calm, results)]
        said = said_of(results).read_text()
        tracebacks += said.count("Traceback") - said.count(UNBORN)
    seen = {"kills": kills - blows.left, **blows.seen, "half_written_files": len(blows.half_written)}
    minutes = round((time.monotonic() - began) / 60, 1)
    row = {"executor": executor, "sweeps": sweeps, "cells": sweeps * work.cells, **seen, "minutes": minutes}
    row |= {"tracebacks": tracebacks, "wrong": wrong}
    print(json.dumps(row, indent=1), flush=True)
    return row


def campaign(kills: dict[str, int], seeds: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """All parts at the same time.  kills: of each executor.  seed: of the moments and the victims."""
    work = Work(folder / "work", seeds)
    calm = work.undisturbed()
    with ThreadPoolExecutor(len(kills)) as pool:
        return list(pool.map(lambda part: strike(work, calm, *part, seed), kills.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", nargs=3, type=int, default=KILLS, metavar="N", help=" / ".join(EXECUTORS))
    parser.add_argument("--seeds", type=int, default=10, help="of each of 8 (method, task) in a sweep")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        kills = {name: n for name, n in zip(EXECUTORS, options.kills, strict=True) if n}
        rows = campaign(kills, options.seeds, options.seed, Path(folder))
    path = RESULTS / "campaign.json"
    others = [row for row in json.loads(path.read_text()) if row["executor"] not in kills] if path.exists() else []
    origin = {"provenance": provenance(torch.device("cpu"), sys.argv)}
    path.write_text(json.dumps([*others, *(row | origin for row in rows)], indent=1) + "\n")
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
