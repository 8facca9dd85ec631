"""A sweep of many short runs, started as a user would; used by campaign.py and executors.py."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from vtab_peft.datasets.atomic_io import PREFIX

METHODS = ("linear", "bitfit", "lora(rank=2)", "aoft_lora")
SIZES = {"train800": 24, "val200": 12, "test": 18}


@dataclass
class Work:
    """Two tasks with a few images, four methods, some seeds."""

    folder: Path
    seeds: int
    first_seconds: float = 0.0
    """Time from the start of an undisturbed command to its first result."""
    run_seconds: float = 0.0
    """Time from one result to the next."""

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
    def runs(self) -> int:
        return 2 * len(METHODS) * self.seeds

    def start(self, results: Path, *more: str) -> psutil.Popen:
        tasks = [str(self.folder / "bright"), str(self.folder / "dark")]
        ask = ["run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1", *more]
        ask += ["--tasks", *tasks, "--methods", *METHODS, "--seeds", *map(str, range(self.seeds))]
        return self.command(ask, results)

    def command(self, arguments: list[str], results: Path) -> psutil.Popen:
        """Start a command; its output goes to a file beside the results."""
        own = {"VTAB_PEFT_CACHE": f"{self.folder}/cache", "OMP_NUM_THREADS": "1"}
        code = "import sys; from vtab_peft.benchmark.cli import main; sys.exit(main())"
        with output_of(results).open("ab") as output:
            return psutil.Popen(
                [sys.executable, "-c", code, *arguments, "--results", str(results)],
                env={**os.environ, **own},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its own process group, as from a terminal
            )

    def undisturbed(self) -> Path:
        """Run and time an undisturbed sweep; return its results folder."""
        results, began = self.folder / "undisturbed", time.monotonic()
        process = self.start(results)
        wait_for(process, results, 1)
        self.first_seconds, first = time.monotonic() - began, time.monotonic()
        wait_for(process, results, self.runs)
        self.run_seconds = (time.monotonic() - first) / (self.runs - 1)
        if process.wait():
            sys.exit(f"the undisturbed sweep failed:\n{output_of(results).read_text()}")
        return results


def output_of(results: Path) -> Path:
    return results.with_name(f"{results.name}.txt")


def stored(results: Path) -> int:
    return sum(not path.name.startswith(PREFIX) for path in (results / "runs").rglob("*.json"))


def wait_for(process: psutil.Popen, results: Path, n: int) -> None:
    """Wait until `n` results are stored or the command ends."""
    while process.poll() is None and stored(results) < n:
        time.sleep(0.05)
