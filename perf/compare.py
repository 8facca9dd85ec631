"""Compare whole runs of the engine with the loop that users write (perf/peer_loop.py).

    python perf/compare.py --folder FOLDER --weights FILE            a CPU, ViT-Tiny, the recipe uniform_3ep
    python perf/compare.py --recipe uniform --backbone vit_base_patch16_224.augreg_in21k --rounds 1

Without a folder the images are synthetic: 1000 + 2000 JPEGs of 500 x 375 pixels, as smooth as photographs.

Backbone, images, batch, epochs and the number of evaluations (one) are the same.  A peer's run is a fresh process, as
users start them.  Ours is one process for `--runs` runs; its time, start-up included, is divided by their number.  Ours
and the peers alternate in rounds.  Medians and ratios are printed and saved in perf/results/compare_<device>.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import save
from peer_loop import FORMS
from PIL import Image
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.recipes import RECIPES

HERE = Path(__file__).parent


def ours(options: argparse.Namespace, method: str, folder: Path) -> dict[str, Any]:
    """Measure our runs of several seeds in one process, decoding included: every round starts without a cache."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, str(HERE.parent / "run_benchmark.py"), "run", "--tasks", str(folder)]
        command += ["--methods", method, "--backbone", options.backbone, "--weights", options.weights]
        command += ["--recipe", options.recipe, "--set", f"epochs={options.epochs}"]
        command += ["--seeds", *map(str, range(options.runs))]
        command += ["--threads", str(options.threads), "--engine", options.engine, "--results", f"{scratch}/results"]
        seconds = _seconds(command, {"VTAB_PEFT_CACHE": f"{scratch}/cache"})
        records = [json.loads(path.read_text()) for path in Path(scratch, "results", "runs").rglob("*.json")]
    return {
        "seconds": seconds / options.runs,
        "train_seconds": statistics.mean(record["result"]["train_seconds"] for record in records),
        "compile_seconds": sum(record["result"]["compile_seconds"] for record in records),
        "accuracy": statistics.mean(record["result"]["accuracy"] for record in records),
    }


def peer(options: argparse.Namespace, method: str, folder: Path, form: str, test_every: int = 0) -> dict[str, Any]:
    """Measure one run of the peers' loop in a fresh process."""
    recipe = RECIPES[options.recipe]
    command = [sys.executable, str(HERE / "peer_loop.py"), str(folder), "--form", form, "--method", method]
    command += ["--backbone", options.backbone.partition(".")[0], "--epochs", str(options.epochs)]
    command += ["--batch", str(recipe.batch_size), "--drop-path", str(recipe.drop_path)]
    command += ["--threads", str(options.threads), "--workers", str(options.workers), "--test-every", str(test_every)]
    if options.weights != "random":
        command += ["--weights", options.weights]
    return json.loads(_output(command).splitlines()[-1])


def synthetic_task(folder: Path, test: int = 2000, classes: int = 10) -> Path:
    """Write a task in the archive layout, with JPEGs that cost as much to decode as photographs."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    lines: dict[str, list[str]] = {}
    for split, n in (("train800", 800), ("val200", 200), ("test", test)):
        for i in range(n):
            pixels = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).resize((500, 375))
            pixels.save(folder / f"images/{split}_{i}.jpg", quality=90)
            lines.setdefault(split, []).append(f"images/{split}_{i}.jpg {i % classes}\n")
    lines["train800val200"] = lines["train800"] + lines["val200"]
    for name, listed in lines.items():
        (folder / f"{name}.txt").write_text("".join(listed))
    return folder


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    _output(command, environment)
    return time.perf_counter() - began


def _output(command: list[str], environment: Mapping[str, str] = {}) -> str:
    """Return what a command prints; if it fails, print the end of all its output before the error is raised."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        print((done.stdout + done.stderr)[-5000:], file=sys.stderr, flush=True)
        done.check_returncode()
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="a task in the archive layout; default: synthetic images")
    parser.add_argument("--methods", nargs="+", default=["lora", "aoft_lora"])
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--recipe", default="uniform_3ep", choices=sorted(RECIPES))
    parser.add_argument("--epochs", type=int, help="epochs of both; default: the recipe's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", "--cells", type=int, default=3, help="our runs in one process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4, help="workers of the peers' DataLoader")
    parser.add_argument("--engine", default="eager")
    parser.add_argument("--test-every-10", action="store_true", help="also evaluate the peers after each tenth epoch")
    options = parser.parse_args()
    options.epochs = options.epochs or RECIPES[options.recipe].epochs
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = {k: Path(v).name if k in ("folder", "weights") and v else v for k, v in vars(options).items()}
    numerics, rows = Numerics(options.threads, options.engine), []
    with tempfile.TemporaryDirectory() as scratch:
        for rows in compare(options, options.folder or synthetic_task(Path(scratch) / "noise")):
            save(f"compare_{device.type}", {"options": asked, "rows": rows}, device, numerics, more=True)
    for row in rows:
        print(
            f"{row['method']:12} {row['loop']:30} {row['seconds_per_cell']:8.1f} s   {row['ratio_to_ours']:5.2f} x ours"
        )
    save(f"compare_{device.type}", {"options": asked, "rows": rows}, device, numerics)


def compare(options: argparse.Namespace, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Alternate our runs and the peers'; yield all rows, one for each method and loop, after each run."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for method in options.methods:
        loops: dict[str, Callable[[], dict[str, Any]]] = {"ours": partial(ours, options, method, folder)}
        loops |= {form: partial(peer, options, method, folder, form) for form in options.forms}
        if options.test_every_10:
            loops["fp32, tested every 10 epochs"] = partial(peer, options, method, folder, "fp32", test_every=10)
        for _ in range(options.rounds):
            for loop, run in loops.items():
                runs.setdefault((method, loop), []).append(found := run())
                print(f"{method} · {loop}: {found['seconds']:.1f} s per run", file=sys.stderr, flush=True)
                yield [row_of(*key, found, runs[key[0], "ours"]) for key, found in runs.items()]


def row_of(method: str, loop: str, found: list[dict[str, Any]], own: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarise a loop's runs and ours in the same rounds.  `compile_seconds` is the total of our runs."""
    ratios = [run["seconds"] / ours["seconds"] for run, ours in zip(found, own, strict=False)]
    return {
        "method": method,
        "loop": loop,
        "seconds_per_cell": statistics.median(run["seconds"] for run in found),
        "train_seconds": statistics.median(run["train_seconds"] for run in found),
        "compile_seconds": statistics.median(run.get("compile_seconds", 0.0) for run in found),
        "accuracy": statistics.mean(run["accuracy"] for run in found),
        "ratio_to_ours": statistics.median(ratios),
        "ratios": ratios,
    }


if __name__ == "__main__":
    main()
