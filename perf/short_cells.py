"""A sweep of many short cells, run as users run it: what the campaign strikes, and executors are timed on."""

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
    def cells(self) -> int:
        return 2 * len(METHODS) * self.seeds

    def start(self, results: Path, *more: str) -> psutil.Popen:
        tasks = [str(self.folder / "bright"), str(self.folder / "dark")]
        ask = ["run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1", *more]
        ask += ["--tasks", *tasks, "--methods", *METHODS, "--seeds", *map(str, range(self.seeds))]
        return self.command(ask, results)

    def command(self, arguments: list[str], results: Path) -> psutil.Popen:
        """Started; what it says goes into a file beside the results."""
        own = {"VTAB_PEFT_CACHE": f"{self.folder}/cache", "OMP_NUM_THREADS": "1"}
        code = "import sys; from vtab_peft.benchmark.cli import main; sys.exit(main())"
        with said_of(results).open("ab") as said:
            return psutil.Popen(
                [sys.executable, "-c", code, *arguments, "--results", str(results)],
                env={**os.environ, **own},
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # as from a terminal of its own
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
            sys.exit(f"the undisturbed sweep failed:\n{said_of(results).read_text()}")
        return results


def said_of(results: Path) -> Path:
    return results.with_name(f"{results.name}.txt")


def stored(results: Path) -> int:
    return sum(not path.name.startswith(PREFIX) for path in (results / "runs").rglob("*.json"))


def wait_for(run: psutil.Popen, results: Path, n: int) -> None:
    """Until there are `n` results, or the command ends."""
    while run.poll() is None and stored(results) < n:
        time.sleep(0.05)
