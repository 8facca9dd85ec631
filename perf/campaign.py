"""Fault campaign: kill the processes of sweeps at random moments and check the results.

    python perf/campaign.py                 300 kills: one worker, two workers, Ray
    python perf/campaign.py --kills 0 10 0  10 kills, only with two workers

`kill -9` hits a worker, the parent, or all of them at once.  Half of the strikes come at a random moment, the others
within two runs of a new result.  A command that was killed or is incomplete is given again until every run is stored;
more sweeps follow until all kills are used.  Each sweep is then compared with an undisturbed one: the same files and no
others, every run bit for bit.  Writes perf/results/campaign.json and keeps its rows of executors that were left out.
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
from short_runs import Work, output_of, stored, wait_for
from vtab_peft.benchmark.engine.timing import provenance
from vtab_peft.datasets.atomic_io import PREFIX, is_abandoned

HALF = str(max(1, (os.cpu_count() or 1) // 2))
EXECUTORS = {
    "one worker": [],
    "two workers": ["--workers", "2"],
    "Ray, two workers": ["--executor", "ray", "--cpus-per-run", HALF],
}
KILLS = (120, 120, 60)
"""Kills per executor; starting Ray takes longest.  A strike often kills a parent and its workers at once."""
TIMED = ("train_seconds", "eval_seconds", "compile_seconds", "images_per_second", "peak_bytes")
"""Fields of a result that differ from run to run."""
START_ABORTED = "reduction.pickle.load(from_parent)"
"""Line at which Python's own traceback ends in a child whose parent was killed while starting it."""
ENDED_SECONDS = 60.0
"""Time within which all processes of a killed parent must exit."""


@dataclass
class Attack:
    """Strikes against the sweeps of one executor, and counts of what happened."""

    work: Work
    rng: random.Random
    kills_left: int
    seen: Counter[str] = field(default_factory=Counter)
    half_written: set[str] = field(default_factory=set)
    started: list[psutil.Process] = field(default_factory=list)
    """Processes that killed parents had started."""

    def sweep(self, results: Path, options: list[str]) -> None:
        """Strike one sweep until it is complete or no kills are left, then let it finish."""
        done = False
        while not done:
            self.seen["commands"] += 1
            run = self.work.start(results, *options)
            while run.poll() is None and self.kills_left > 0:
                self._wait(run, results)
                if run.poll() is None:
                    self._strike(run, results)
            done = run.wait() == 0 and stored(results) == self.work.runs

    def survivors(self) -> list[psutil.Process]:
        """Return processes that outlived their parent, and end them."""
        _, alive = psutil.wait_procs(self.started, ENDED_SECONDS)
        for process in alive:
            process.kill()
        self.started.clear()
        return alive

    def _wait(self, run: psutil.Popen, results: Path) -> None:
        reach = self.work.first_seconds
        if self.rng.random() < 0.5:
            wait_for(run, results, stored(results) + 1)
            reach = 2 * self.work.run_seconds
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
            self.seen.update(strikes=1, before_any_result=not stored(results))
            self.kills_left -= len(victims)
            psutil.wait_procs(victims, ENDED_SECONDS)
            self.half_written |= set(half_written(results))


def is_worker(process: psutil.Process) -> bool:
    """Return True for a worker process and for its supervisor on Ray."""
    with suppress(psutil.Error):
        line = " ".join(process.cmdline())
        return "spawn_main" in line or line.startswith("ray::RaySupervisedWorker")
    return False


def half_written(results: Path) -> Iterator[str]:
    """Yield the files whose writer was killed while writing."""
    for path in results.rglob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):
            if is_abandoned(path.name, path.stat().st_mtime):
                yield path.name


def find_problems(work: Work, undisturbed: Path, struck: Path) -> list[str]:
    """Return every difference between the results of a struck sweep and the undisturbed one."""
    expected, found = (
        {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} for root in (undisturbed, struck)
    )
    wrong = [f"{name} is missing" for name in sorted(expected - found)]
    wrong += [f"{name} is unexpected" for name in sorted(found - expected)]
    for name in sorted(name for name in expected & found if name.startswith("runs/")):
        same = essence(undisturbed / name) == essence(struck / name)
        wrong += [] if same else [f"{name} differs from the undisturbed one"]
    if work.command(["verify"], struck).wait():
        wrong.append("`verify` finds something wrong")
    return wrong


def essence(path: Path) -> Any:
    """Return what must be identical: a record without times, or all bytes of another file."""
    if path.suffix != ".json":
        return path.read_bytes()
    record = json.loads(path.read_text())
    result = {name: value for name, value in record["result"].items() if name not in TIMED}
    return record["key"], record["spec"], record["predictions_sha256"], record["facts"], result


def attack(work: Work, undisturbed: Path, executor: str, kills: int, seed: int) -> dict[str, Any]:
    """Attack one executor; return counts and problems."""
    began, wrong, sweeps, tracebacks = time.monotonic(), [], 0, 0
    strikes = Attack(work, random.Random(f"{seed} {executor}"), kills)
    while strikes.kills_left > 0:
        sweeps += 1
        results = undisturbed.with_name(f"{executor.replace(' ', '-')}-{sweeps}")
        strikes.sweep(results, EXECUTORS[executor])
        wrong += [f"still running: {process}" for process in strikes.survivors()]
        wrong += [f"{executor}, sweep {sweeps}: {text}" for text in find_problems(work, undisturbed, results)]
        output = output_of(results).read_text()
        tracebacks += output.count("Traceback") - output.count(START_ABORTED)
    seen = {"kills": kills - strikes.kills_left, **strikes.seen, "half_written_files": len(strikes.half_written)}
    minutes = round((time.monotonic() - began) / 60, 1)
    row = {"executor": executor, "sweeps": sweeps, "runs": sweeps * work.runs, **seen, "minutes": minutes}
    row |= {"tracebacks": tracebacks, "wrong": wrong}
    print(json.dumps(row, indent=1), flush=True)
    return row


def campaign(kills: dict[str, int], seeds: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Attack all executors at the same time.

    Args:
        kills: number per executor.
        seed: of the random moments and victims.
    """
    work = Work(folder / "work", seeds)
    undisturbed = work.undisturbed()
    with ThreadPoolExecutor(len(kills)) as pool:
        return list(pool.map(lambda part: attack(work, undisturbed, *part, seed), kills.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", nargs=3, type=int, default=KILLS, metavar="N", help=" / ".join(EXECUTORS))
    parser.add_argument("--seeds", type=int, default=10, help="seeds per sweep, each with 8 runs")
    parser.add_argument("--seed", type=int, default=0, help="random seed of moments and victims")
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
