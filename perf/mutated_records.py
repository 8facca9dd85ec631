"""Run commands on results folders in which one value of one record was replaced by a value of another kind.

    python perf/mutated_records.py          600 records: every field and value in random order
    python perf/mutated_records.py --records 60

Two runs are trained first.  Each time, one value of one record is replaced, the record is filed under the run ID of its
new spec so that it is read, and a command runs.  It must end with status 0, 1 or 2, without an escaped exception or a
temporary file, and the other run must still be read.  Writes perf/results/mutated_records.json.
"""

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import save
from mutations import JUNK, mutated, paths_in, renamed
from PIL import Image
from vtab_peft.benchmark.cli import main as command_line
from vtab_peft.benchmark.storage.store import Store

SWEEP = ("--suite", "toy", "--tasks", "count", "--backbone", "toy_vit", "--recipe", "smoke", "--methods", "lora")
SHARES = {"report": 24, "status": 24, "verify": 24, "export": 22, "predict": 22, "run --dry-run": 4}
"""Share of each command; `run` starts a worker each time, which takes seconds."""


def arguments(name: str, results: Path, record: Path, pictures: Path) -> list[str]:
    """Return the command line of a command that reads the record."""
    model = ["--results", str(results)]
    return {
        "export": ["export", str(record), "--as", "adapter", "--output", str(results.parent / "exported"), *model],
        "predict": ["predict", str(pictures), "--adapter", str(record), *model],
        "run --dry-run": ["run", *SWEEP, "--seeds", "0", "1", "--threads", "1", "--dry-run", *model],
    }.get(name, [name, *model])


def run(words: list[str]) -> tuple[str, str]:
    """Return the exit status of a command, or the exception that escaped, and what it printed."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return f"exit {command_line(words)}", said.getvalue()
        except SystemExit as end:
            return f"exit {end.code}", said.getvalue()
        except BaseException as error:
            return f"{type(error).__name__}: {error}", said.getvalue()


def campaign(records: int, seed: int, folder: Path) -> dict[str, Any]:
    """Mutate records; return counts and every problem."""
    valid, results, pictures = folder / "valid", folder / "results", folder / "pictures"
    status, said = run(
        ["run", *SWEEP, "--seeds", "0", "1", "--threads", "1", "--save-adapters", "--results", str(valid)]
    )
    if status != "exit 0":
        sys.exit(said)
    pictures.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(pictures / "x.png")
    record, other = sorted((valid / "runs").rglob("*.json"))
    text, kept = record.read_text(), other.name
    draw, counts, wrong = random.Random(seed), Counter(), []
    places = list(paths_in(json.loads(text)))
    for number in range(records):
        place, junk = places[number % len(places)], draw.choice(JUNK)
        (name,) = draw.choices(list(SHARES), list(SHARES.values()))
        shutil.rmtree(results, ignore_errors=True)
        shutil.rmtree(folder / "exported", ignore_errors=True)
        shutil.copytree(valid, results)
        before = results / record.relative_to(valid)
        path = renamed(before, mutated(text, place, junk))
        for suffix in (".npz", ".safetensors"):
            with suppress(FileNotFoundError):
                before.with_suffix(suffix).rename(path.with_suffix(suffix))
        status, said = run(arguments(name, results, path, pictures))
        counts[f"{name}: {status}"] += 1
        case = f"{name}, {'.'.join(map(str, place))} = {junk[:40]}"
        if status not in ("exit 0", "exit 1", "exit 2") or "Traceback" in said:
            wrong.append(f"{case}: {status}")
        wrong += [f"{case}: {temporary.name} was left" for temporary in folder.rglob(".tmp-*")]
        if kept not in {run.path.name for run in Store(results).load_runs()[0]}:
            wrong.append(f"{case}: the other run is not read")
    return {
        "records": records,
        "fields": len(places),
        "values": len(JUNK),
        "ends": dict(sorted(counts.items())),
        "wrong": wrong,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(options.records, options.seed, Path(folder))
    minutes = round((time.monotonic() - began) / 60, 1)
    print(json.dumps(found, indent=1))
    save("mutated_records", found | {"minutes": minutes}, torch.device("cpu"))
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
