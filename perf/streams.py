"""Compare K runs of one method on CUDA streams of their own, in one process, with the same K runs in turn.

    python perf/streams.py [--runs 1 2 4 8] [--backbones vit_tiny_... vit_small_...] [--methods lora]   random weights

A whole training step (forward, loss, backward, AdamW) of each run is one CUDA graph.  In turn: the graphs are replayed
one after the other on one stream.  Side by side: each graph on its own stream, so that small kernels of one run may
fill what another leaves idle.  On a CPU there are no streams, both ways are the same, and the gain is 1: a rehearsal.

Writes perf/results/streams_<device>.json, with `--compiled` streams_<device>_compiled.json, a row as it is measured:
images per second of both ways, their quotient, and the largest relative difference of the trained values, which must be
rounding.
"""

import argparse
import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from measured import save
from torch import Tensor, nn
from vmap_runs import runs_of
from vtab_peft.benchmark.engine.backbone import Backbone, load
from vtab_peft.benchmark.engine.timing import now
from vtab_peft.methods.anatomy import VisionModel

ROUNDS = 5
"""Rounds in which both ways alternate; the median counts."""
STEPS = {"cuda": 40, "cpu": 1}
"""Training steps of each run in a round (ours: a second and more on a GPU)."""
WARM_UP = 3
"""Steps before a capture, which allocate what a graph must not."""
CLASSES = 100
"""Outputs of the head (ours; VTAB-1k has tasks of 2 to 397)."""
BACKBONES = ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "vit_small_patch16_224.augreg_in21k_ft_in1k")


class TrainingRun:
    """One run on fixed images: a model, its optimiser, and on a GPU its stream and the graph of its step."""

    def __init__(self, vit: VisionModel, images: Tensor, labels: Tensor, compiled: bool) -> None:
        self.device = images.device
        torch.manual_seed(0)
        self.model = nn.Sequential(vit, nn.Linear(vit.num_features, CLASSES)).to(self.device)
        self.images, self.labels = images, labels
        self._forward = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        on_gpu = self.device.type == "cuda"
        self._optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True, capturable=on_gpu)
        self.stream = torch.cuda.Stream() if on_gpu else None
        self._graph = self._captured() if on_gpu else None

    def step(self) -> None:
        """Train one step, by the graph if there is one."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._train()

    def _train(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):  # a graph may not reuse old casts
            scores = self._forward(self.images)
        nn.functional.cross_entropy(scores.float(), self.labels).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _captured(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UP):
                self._train()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=self.stream):
            self._train()
        return graph


def replay(runs: Sequence[TrainingRun], steps: int, side_by_side: bool) -> None:
    """Train every run for `steps` steps, each on its stream or all on the current one."""
    for _ in range(steps):
        for run in runs:
            with torch.cuda.stream(run.stream) if side_by_side and run.stream else nullcontext():
                run.step()


def measure(
    spec: str, backbone: Backbone, count: int, batch: int, compiled: bool, device: torch.device
) -> dict[str, Any]:
    """Return the row of `count` runs: images per second in turn and side by side."""
    torch.compiler.reset()
    size, steps = backbone.image_size, STEPS[device.type]
    images = torch.randn(count, batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(CLASSES, (count, batch), generator=torch.Generator().manual_seed(1))

    def made() -> list[TrainingRun]:
        vits = runs_of(spec, backbone, count, device)
        pairs = zip(vits, images.to(device), labels.to(device), strict=True)
        return [TrainingRun(vit.eval(), own, label, compiled) for vit, own, label in pairs]  # eval: no drop-path

    ways = {"in turn": made(), "side by side": made()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, runs in ways.items():
            started = now(device)
            replay(runs, steps, way == "side by side")
            seconds[way].append(now(device) - started)
    rates = {way: count * batch * steps / statistics.median(found) for way, found in seconds.items()}
    return {
        "method": spec,
        "runs": count,
        "batch": batch,
        "compiled": compiled,
        "images_per_second": rates,
        "gain": rates["side by side"] / rates["in turn"],
        "values_apart": max(distance(*pair) for pair in zip(*ways.values(), strict=True)),
    }


def distance(one: TrainingRun, other: TrainingRun) -> float:
    """Return the relative distance between the trained values of two runs."""
    a, b = (torch.cat([parameter.detach().flatten() for parameter in run.trained]) for run in (one, other))
    return float((a - b).norm() / a.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=["lora"])
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--runs", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--compiled", action="store_true", help="graphs of Inductor's kernels, not of the eager ones")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[dict[str, Any]] = []
    file = f"streams_{device.type}" + ("_compiled" if options.compiled else "")
    for name in options.backbones:
        backbone = load(name, "random")
        for spec in options.methods:
            for count in options.runs:
                row = {"backbone": name} | measure(spec, backbone, count, options.batch, options.compiled, device)
                rows.append(row)
                rates = ", ".join(f"{way} {rate:,.0f}" for way, rate in row["images_per_second"].items())
                print(f"{name}, {spec}, {count} runs: images/s {rates}; gain {row['gain']:.2f}", flush=True)
                save(file, {"rows": rows}, device, more=True)


if __name__ == "__main__":
    main()
