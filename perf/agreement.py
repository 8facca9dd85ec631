"""Effect of the fast path on accuracy: the same runs in single precision, in bf16, and in bf16 compiled.

    python perf/agreement.py FOLDER [FOLDER ...] --weights FILE      ViT-Tiny, the recipe uniform_3ep, LoRA and AOFT

FOLDERs are tasks in the archive layout.  Single precision, eager, is the reference, and the spread of its seeds is the
measure for the other forms.  Each run is saved as soon as it ends, in perf/results/agreement_<device>.json, and is not
repeated.
"""

import argparse
import json
import statistics
from dataclasses import replace
from typing import Any

import torch
from measured import RESULTS, save
from tabulate import tabulate
from vtab_peft.benchmark.commands.throughput import spec_of
from vtab_peft.benchmark.engine.backbone import Backbone, load
from vtab_peft.benchmark.engine.live_model import LiveModel
from vtab_peft.benchmark.engine.numerics import Engine, Numerics
from vtab_peft.benchmark.engine.trainer import train_and_evaluate
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.datasets.cache import CachedTask, build, cached, default_root
from vtab_peft.datasets.pixels import Preprocessing
from vtab_peft.datasets.tasks import find
from vtab_peft.methods import parse

PLAIN = "fp32 eager"
FORMS: dict[str, tuple[str, Engine]] = {
    PLAIN: ("fp32", "eager"),
    "bf16 eager": ("bf16", "eager"),
    "bf16 compiled": ("bf16", "compiled"),
    "bf16 compiled_graphs": ("bf16", "compiled_graphs"),
}

Entry = dict[str, Any]
"""A run: form, method, task, seed and accuracy."""


def accuracy(
    spec: str, data: CachedTask, form: str, seed: int, backbone: Backbone, live: LiveModel, recipe: str
) -> float:
    """Return the accuracy of one run."""
    method = parse(spec)
    precise = replace(RECIPES[recipe], precision=FORMS[form][0])
    spec_run = replace(spec_of(method, backbone, data, precise), seed=seed)
    return train_and_evaluate(spec_run, method, backbone, data, live)[0].accuracy


def table(entries: list[Entry]) -> str:
    """Return a table with the mean accuracy in percent of each task and method, and the range of the reference."""
    forms = [form for form in FORMS if any(entry["form"] == form for entry in entries)]
    rows = []
    for task, method in sorted({(entry["task"], entry["method"]) for entry in entries}):
        found = {
            form: [
                100 * entry["accuracy"]
                for entry in entries
                if (entry["task"], entry["method"], entry["form"]) == (task, method, form)
            ]
            for form in forms
        }
        means = [f"{statistics.mean(values):.1f}" if values else "" for values in found.values()]
        plain = found.get(PLAIN, [])
        spread = f"{min(plain):.1f} to {max(plain):.1f}" if len(plain) > 1 else ""
        rows.append((task, method, *means, spread))
    header = ("task", "method", *forms, f"seeds of {PLAIN}")
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--methods", nargs="+", default=["lora", "aoft_lora"])
    parser.add_argument("--backbone", default="vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--recipe", default="uniform_3ep", choices=sorted(RECIPES))
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), help="default: all; CUDA graphs only on a GPU")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load(options.backbone, options.weights)
    preprocessing = Preprocessing(backbone.image_size, "bicubic", RECIPES[options.recipe].framing)
    tasks = [
        cached(task, preprocessing, default_root()) or build(task, preprocessing, default_root())
        for task in find(options.folders, None, None)
    ]
    path = RESULTS / f"agreement_{device.type}.json"
    entries: list[Entry] = json.loads(path.read_text())["cells"] if path.exists() else []
    fitting = [form for form, (_, engine) in FORMS.items() if device.type == "cuda" or "graphs" not in engine]
    for form in options.forms or fitting:
        live = LiveModel(device, Numerics(options.threads, FORMS[form][1]))
        for method in options.methods:
            for data in tasks:
                for seed in options.seeds:
                    entry = {"form": form, "method": method, "task": data.task.name, "seed": seed}
                    if any(entry.items() <= known.items() for known in entries):
                        continue
                    entry["accuracy"] = accuracy(method, data, form, seed, backbone, live, options.recipe)
                    entries.append(entry)
                    print(*entry.values(), flush=True)
                    found = {"backbone": options.backbone, "recipe": options.recipe, "cells": entries}
                    save(path.stem, found, device, Numerics(options.threads), more=True)
    print(table(entries))


if __name__ == "__main__":
    main()
