"""Wall time by phase of one method on the 19 tasks of VTAB-1k, with their real sizes and images of noise.

    python perf/column.py --method lora --engine compiled                 ViT-B/16 and the recipe `uniform`
    python perf/column.py --scale 0.02 --backbone toy_vit --weights random    a quick check on a CPU

Image files are not read from disk: the test images of a task repeat one block of noise.  `--scale` reduces the number
of epochs and of test images.  Totals are measured, never extrapolated.  Writes
perf/results/column_<device>_<method>_<engine>.json after each task.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from measured import save
from vtab_peft.benchmark.commands.throughput import noise, spec_of
from vtab_peft.benchmark.engine.backbone import load
from vtab_peft.benchmark.engine.live_model import LiveModel
from vtab_peft.benchmark.engine.numerics import ENGINES, Numerics
from vtab_peft.benchmark.engine.trainer import train_and_evaluate
from vtab_peft.benchmark.recipes import UNIFORM
from vtab_peft.datasets.cache import CachedTask
from vtab_peft.datasets.tasks import suite_tasks
from vtab_peft.methods import parse

BLOCK = 4096
"""Number of different test images: 0.6 GB at 224 pixels, more than a processor's cache."""


class Repeated:
    """An array of `n` images that repeats a block."""

    def __init__(self, block: np.ndarray, n: int) -> None:
        self.block, self.n = block, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, where: slice) -> np.ndarray:
        start, stop, _ = where.indices(self.n)
        return self.block[np.arange(start, stop) % len(self.block)]


class Sized:
    """A task of noise with the number of classes and test images of a real one."""

    def __init__(self, noise: CachedTask, classes: int, test: int) -> None:
        self.noise, self.classes, self.test = noise, classes, test

    def __getattr__(self, name: str) -> Any:
        return getattr(self.noise, name)

    def images(self, split: str) -> Any:
        found = self.noise.images(split)
        return Repeated(found, self.test) if split == "test" else found

    def labels(self, split: str) -> np.ndarray:
        n = self.test if split == "test" else self.noise.counts[split]
        return np.random.default_rng(1).integers(0, self.classes, n)


@contextmanager
def column(size: int, scale: float) -> Iterator[list[tuple[str, Sized]]]:
    """Yield the 19 tasks, with test sets reduced by `scale`."""
    with noise({"train": 800, "val": 200, "test": min(BLOCK, max(1, round(BLOCK * scale)))}, size) as pixels:
        yield [
            (name, Sized(pixels, task.classes, max(1, round(task.sizes["test"][0] * scale))))
            for name, task in suite_tasks("vtab1k").items()
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", default="lora", help="spec string")
    parser.add_argument("--backbone", default="vit_base_patch16_224.augreg_in21k")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--engine", default="eager", choices=ENGINES)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the epochs and test images")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone, method = load(options.backbone, options.weights), parse(options.method)
    recipe = replace(UNIFORM, epochs=max(1, round(100 * options.scale)), warmup_epochs=10 * options.scale)
    live = LiveModel(device, Numerics(options.threads, options.engine))
    name = f"column_{device.type}_{options.method.partition('(')[0]}_{options.engine}"
    phases = {"start-up": time.perf_counter() - began, "compiling": 0.0, "training": 0.0, "evaluation": 0.0}
    done: list[str] = []
    with column(backbone.image_size, options.scale) as tasks:
        for task_name, task in tasks:
            spec = spec_of(method, backbone, task, recipe)
            result, _ = train_and_evaluate(spec, method, backbone, task, live)
            phases["compiling"] += result.compile_seconds
            phases["training"] += result.train_seconds
            phases["evaluation"] += result.eval_seconds
            total = time.perf_counter() - began
            done.append(task_name)
            print(
                f"{task_name:20} {result.train_seconds:7.1f} s training  {result.eval_seconds:7.1f} s evaluation",
                flush=True,
            )
            rest = total - sum(phases.values())
            found = {
                "method": options.method,
                "backbone": options.backbone,
                "scale": options.scale,
                "tasks": done,
                "seconds": {**phases, "everything else": rest, "total": total},
            }
            save(name, found, device, live.numerics, more=len(done) < len(tasks))
    for phase, seconds in found["seconds"].items():
        print(f"{phase:20} {seconds:7.1f} s")
    print(f"at scale {options.scale:g}")


if __name__ == "__main__":
    main()
