"""Whole cells, ours against the loop that users write (perf/peer_loop.py), on the same work in the same run.

    python perf/compare.py --folder FOLDER --weights FILE            a CPU, ViT-Tiny, the recipe uniform_3ep
    python perf/compare.py --recipe uniform --backbone vit_base_patch16_224.augreg_in21k --rounds 1

Without a folder the images are made up: 1000 + 2000 JPEGs of 500 x 375 pixels, smooth as photographs are.

Same backbone, images, batch, epochs and number of evaluations (one).  A peer's cell is a fresh process, as users run
them; ours is one process for `--cells` cells, start-up included, over their number.  Ours and the peers run in turn,
round after round; medians and ratios are printed and stored in perf/results/compare_<device>.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import keep
from peer_loop import FORMS
from PIL import Image
from vtab_peft.benchmark.planning.recipes import RECIPES

HERE = Path(__file__).parent


def ours(options: argparse.Namespace, method: str, folder: Path) -> dict[str, Any]:
    """Seconds a cell of `--cells` seeds in one process, decoding included: every round begins without a cache."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, str(HERE.parent / "run_benchmark.py"), "run", "--tasks", str(folder)]
        command += ["--methods", method, "--backbone", options.backbone, "--weights", options.weights]
        command += ["--recipe", options.recipe, "--seeds", *map(str, range(options.cells))]
        command += ["--threads", str(options.threads), "--engine", options.engine, "--results", f"{scratch}/results"]
        seconds = _seconds(command, {"VTAB_PEFT_CACHE": f"{scratch}/cache"})
        records = [json.loads(path.read_text()) for path in Path(scratch, "results", "runs").rglob("*.json")]
    return {
        "seconds": seconds / options.cells,
        "train_seconds": statistics.mean(record["result"]["train_seconds"] for record in records),
        "accuracy": statistics.mean(record["result"]["accuracy"] for record in records),
    }


def peer(options: argparse.Namespace, method: str, folder: Path, form: str, test_every: int = 0) -> dict[str, Any]:
    recipe = RECIPES[options.recipe]
    command = [sys.executable, str(HERE / "peer_loop.py"), str(folder), "--form", form, "--method", method]
    command += ["--backbone", options.backbone.partition(".")[0], "--epochs", str(recipe.epochs)]
    command += ["--batch", str(recipe.batch_size), "--drop-path", str(recipe.drop_path)]
    command += ["--threads", str(options.threads), "--workers", str(options.workers), "--test-every", str(test_every)]
    if options.weights != "random":
        command += ["--weights", options.weights]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def made_up(folder: Path, test: int = 2000, classes: int = 10) -> Path:
    """A task in the archive layout, of JPEGs that cost as much to decode as photographs of their size."""
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
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="a task in the archive layout; default: made-up images")
    parser.add_argument("--methods", nargs="+", default=["lora", "aoft_lora"])
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--recipe", default="uniform_3ep", choices=sorted(RECIPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cells", type=int, default=3, help="of ours in one process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4, help="of the peers' DataLoader")
    parser.add_argument("--engine", default="eager")
    parser.add_argument(
        "--test-every-10", action="store_true", help="also the peers' habit of testing each tenth epoch"
    )
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        rows = compare(options, options.folder or made_up(Path(scratch) / "noise"))
    asked = {k: Path(v).name if k in ("folder", "weights") and v else v for k, v in vars(options).items()}
    keep(f"compare_{device.type}", {"options": asked, "rows": rows}, device)


def compare(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A row for each method and loop; ours and the peers' in turn."""
    rows: list[dict[str, Any]] = []
    for method in options.methods:
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.rounds):
            runs.setdefault("ours", []).append(ours(options, method, folder))
            for form in options.forms:
                runs.setdefault(form, []).append(peer(options, method, folder, form))
            if options.test_every_10:
                found = peer(options, method, folder, "fp32", test_every=10)
                runs.setdefault("fp32, tested every 10 epochs", []).append(found)
        own = [run["seconds"] for run in runs["ours"]]
        for name, found in runs.items():
            ratios = [run["seconds"] / ours_ for run, ours_ in zip(found, own, strict=True)]
            rows.append(
                {
                    "method": method,
                    "loop": name,
                    "seconds_per_cell": statistics.median(run["seconds"] for run in found),
                    "train_seconds": statistics.median(run["train_seconds"] for run in found),
                    "accuracy": statistics.mean(run["accuracy"] for run in found),
                    "ratio_to_ours": statistics.median(ratios),
                    "ratios": ratios,
                }
            )
            row = rows[-1]
            print(f"{method:12} {name:30} {row['seconds_per_cell']:8.1f} s a cell   {row['ratio_to_ours']:5.2f} x ours")
    return rows


if __name__ == "__main__":
    main()
