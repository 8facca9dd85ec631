"""The fault campaign: sweeps whose processes are killed at random moments, and what that leaves of their results.

    python perf/campaign.py                 200 kills and more: one worker, two workers, Ray
    python perf/campaign.py --kills 0 10 0  ten, with two workers alone

`kill -9` hits a worker, the parent, or all of them at once, half of the time at any moment since the last blow, half of
the time within two cells of a new result.  A command that was killed, or that ended with lost cells, is given again,
until every cell is there; a sweep that is complete too early is followed by another.  Each is then held against a sweep
that nobody disturbed: the same files and no other, every cell bit for bit.  Writes perf/results/campaign.json.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from vtab_peft.benchmark.measure import provenance
from vtab_peft.datasets.atomic import PREFIX, is_abandoned

RESULTS = Path(__file__).parent / "results"
HALF = str(max(1, (os.cpu_count() or 1) // 2))
EXECUTORS = {
    "one worker": [],
    "two workers": ["--workers", "2"],
    "Ray, two workers": ["--executor", "ray", "--cpus-per-cell", HALF],
}
KILLS = (60, 90, 50)
"""Of each executor; starting Ray takes longest."""
METHODS = ("linear", "bitfit", "lora(rank=2)", "aoft_lora")
SIZES = {"train800": 24, "val200": 12, "test": 18}
TIMED = ("train_seconds", "eval_seconds", "compile_seconds", "images_per_second", "peak_bytes")
"""What a record says of a cell that is not the same twice."""
ENDED_SECONDS = 60.0
"""Within which everything that a killed parent started must be gone."""


@dataclass
class Work:
    """What every sweep of a campaign does: two tasks of a few images, four methods, some seeds."""

    folder: Path
    seeds: int
    first_seconds: float = 0.0
    """From the start of an undisturbed command to its first result."""
    cell_seconds: float = 0.0
    """From one result to the next."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        for task in ("bright", "dark"):
            (self.folder / task).mkdir(parents=True)
            for split, n in SIZES.items():
                names = [f"{split}_{i}.png" for i in range(n)]
                for i, name in enumerate(names):
                    pixels = rng.integers(0, 120, (32, 32, 3)) + 100 * (np.arange(3) == i % 3)
                    Image.fromarray(pixels.astype(np.uint8)).save(self.folder / task / name)
                lines = "".join(f"{name} {i % 3}\n" for i, name in enumerate(names))
                (self.folder / task / f"{split}.txt").write_text(lines)
            texts = [(self.folder / task / f"{split}.txt").read_text() for split in ("train800", "val200")]
            (self.folder / task / "train800val200.txt").write_text("".join(texts))

    @property
    def said(self) -> Path:
        """What the commands print."""
        return self.folder / "said.txt"

    @property
    def cells(self) -> int:
        return 2 * len(METHODS) * self.seeds

    def start(self, results: Path, *more: str) -> psutil.Popen:
        tasks = [str(self.folder / "bright"), str(self.folder / "dark")]
        ask = ["run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1", *more]
        ask += ["--tasks", *tasks, "--methods", *METHODS, "--seeds", *map(str, range(self.seeds))]
        return self.command([*ask, "--results", str(results)])

    def command(self, arguments: list[str]) -> psutil.Popen:
        own = {"VTAB_PEFT_CACHE": f"{self.folder}/cache", "RAY_TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1"}
        code = "import sys; from vtab_peft.benchmark.cli import main; sys.exit(main())"
        with self.said.open("ab") as said:
            return psutil.Popen(
                [sys.executable, "-c", code, *arguments],
                env={**os.environ, **own},
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def undisturbed(self) -> Path:
        """The results of a sweep that nobody disturbs; it is timed."""
        results, began = self.folder / "undisturbed", time.monotonic()
        run = self.start(results)
        wait_for(run, results, 1)
        self.first_seconds, first = time.monotonic() - began, time.monotonic()
        wait_for(run, results, self.cells)
        self.cell_seconds = (time.monotonic() - first) / (self.cells - 1)
        if run.wait():
            sys.exit(f"the undisturbed sweep failed:\n{self.said.read_text()}")
        return results


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
            victims = self.rng.choices((one, [run], [*workers, run]), (4, 3, 3))[0]
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
        return "spawn_main" in line or line.startswith("ray::RayStation")
    return False


def stored(results: Path) -> int:
    return sum(not path.name.startswith(PREFIX) for path in (results / "runs").rglob("*.json"))


def wait_for(run: psutil.Popen, results: Path, n: int) -> None:
    """Until there are `n` results, or the command ends."""
    while run.poll() is None and stored(results) < n:
        time.sleep(0.01)


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
    if work.command(["verify", "--results", str(struck)]).wait():
        wrong.append("`verify` finds something wrong")
    return wrong


def essence(path: Path) -> Any:
    """Of a record what must be the same however the cell came to be run; of its predictions every byte."""
    if path.suffix != ".json":
        return path.read_bytes()
    record = json.loads(path.read_text())
    result = {name: value for name, value in record["result"].items() if name not in TIMED}
    return record["key"], record["spec"], record["predictions_sha256"], record["facts"], result


def campaign(kills: dict[str, int], seeds: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """kills: of each executor.  seed: of the moments and the victims."""
    work = Work(folder / "work", seeds)
    calm = work.undisturbed()
    rows = []
    for name, quota in kills.items():
        began, wrong, sweeps = time.monotonic(), [], 0
        blows = Blows(work, random.Random(f"{seed} {name}"), quota)
        while blows.left > 0:
            sweeps += 1
            results = folder / f"{name.partition(' ')[0]}-{sweeps}"
            blows.sweep(results, EXECUTORS[name])
            wrong += [f"still running: {process}" for process in blows.survivors()]
            wrong += [f"{name}, sweep {sweeps}: {text}" for text in what_is_wrong(work, calm, results)]
        seen = {"kills": quota - blows.left, **blows.seen, "half_written_files": len(blows.half_written)}
        rows.append({"executor": name, "sweeps": sweeps, "cells": sweeps * work.cells, **seen, "wrong": wrong})
        rows[-1] |= {"tracebacks": work.said.read_text().count("Traceback")}
        rows[-1] |= {"minutes": round((time.monotonic() - began) / 60, 1)}
        work.said.unlink()
        print(json.dumps(rows[-1], indent=1), flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", nargs=3, type=int, default=KILLS, metavar="N", help=" / ".join(EXECUTORS))
    parser.add_argument("--seeds", type=int, default=10, help="of each of 8 (method, task) in a sweep")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        kills = {name: n for name, n in zip(EXECUTORS, options.kills, strict=True) if n}
        rows = campaign(kills, options.seeds, options.seed, Path(folder))
    record = {"rows": rows, **provenance(torch.device("cpu"), sys.argv)}
    (RESULTS / "campaign.json").write_text(json.dumps(record, indent=1) + "\n")
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
